"""What a model family is to the rest of the program: the protocol that all of them follow.

A family encodes frames to features, lets a memory observe them one after the other, and gives its
language model a context that is read from the memory at any time. Nothing outside `models` knows
more of a family than this.

Letters: B prompts, T features, P positions of a feature, C their width, S slots of a bank,
n context tokens, D their width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from malmm_cli.memory.spans import Slots
from malmm_cli.settings import Decoding, MemoryOptions, Settings

__all__ = ["Context", "Features", "Memory", "OnText", "Slots", "Spec", "VideoModel", "Work"]

OnText = Callable[[str], None]


@dataclass(frozen=True)
class Spec:
    """What never changes about a model, and what its family does where nothing is asked for.

    A feature has `patches` positions of `width`, stands for `frames_per_feature` frames and depends
    on `halo` frames before and after them. The language model reads `context` tokens, None for any
    number. `defaults` are settings by task: "caption", "ask".
    """

    family: str
    patches: int
    width: int
    context: int | None
    policies: tuple[str, ...]
    banks: tuple[str, ...]
    defaults: Mapping[str, Settings]
    frames_per_feature: int = 1
    halo: int = 0


class Features(NamedTuple):
    """What an encoder makes of T frames.

    `rows` (T, P, C) are what is compared; `seconds` (T, 2) float64 say when the first and the last
    picture of each is shown; `riders` (T, P, *) are merged with the rows' weights.
    """

    rows: Tensor
    seconds: Tensor
    riders: Mapping[str, Tensor] = {}


@dataclass(frozen=True)
class Context:
    """What the language model is given of a video, for B prompts: `tokens` (B, n, D)."""

    tokens: Tensor = field(repr=False)

    def __len__(self) -> int:
        return len(self.tokens)

    def chosen(self, prompts: slice | Sequence[int]) -> Context:
        """Return the same for some of the prompts."""
        return Context(self.tokens[prompts])

    @staticmethod
    def joined(parts: Sequence[Context]) -> Context:
        """Return one for the prompts of all parts."""
        return Context(torch.cat([part.tokens for part in parts]))


@dataclass(frozen=True)
class Work:
    """Something whose size in memory is asked for; with B prompts, one of them is meant.

    "frame" is encoding one frame, "feature" keeping one; "prompt" is keeping a memory for one
    prompt while `frames` are observed, `chunk` at a time; "answer" is generating one after
    `context` tokens.
    """

    kind: Literal["frame", "feature", "prompt", "answer"]
    prompts: Sequence[str] = ()
    memory: MemoryOptions = field(default_factory=MemoryOptions)
    decoding: Decoding = field(default_factory=Decoding)
    frames: int = 0
    chunk: int = 1
    context: int = 0


class Memory(Protocol):
    """What has been observed of one video; only its family knows what is in it."""

    @property
    def frames(self) -> int:
        """Features observed."""

    def slots(self) -> Slots:
        """Return copies of what is held, the newest feature last."""

    def copy(self) -> Memory:
        """Return an independent copy, tensors included."""


M = TypeVar("M", bound=Memory)


class VideoModel(Protocol[M]):
    """A model of some family, on its device."""

    @property
    def spec(self) -> Spec:
        """What never changes about it."""

    @property
    def device(self) -> torch.device:
        """Where it observes."""

    @property
    def dtype(self) -> torch.dtype:
        """What it observes in."""

    @property
    def answers_on(self) -> torch.device:
        """Where its language model begins."""

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) of the frames that `encode` takes of such a video."""

    def encode(self, frames: Tensor, seconds: Tensor) -> Features:
        """Encode frames (T, H, W, 3) uint8 RGB, shown at `seconds` (T,)."""

    def start(self, prompts: Sequence[str], options: MemoryOptions, total: int | None) -> M:
        """Return an empty memory for prompts; `total` features will come, if that is known.

        Without prompts it can be kept, but gives no context.
        """

    def restore(
        self, prompts: Sequence[str], options: MemoryOptions, slots: Slots, frames: int
    ) -> M:
        """Return a memory for prompts that holds `slots` of a video with so many features."""

    def observe(self, memory: M, features: Features) -> None:
        """Let memory take in features that follow those it has seen."""

    def context(self, memory: M) -> Context:
        """Return what the language model is given now; memory stays as it is."""

    def generate(
        self,
        context: Context,
        prompts: Sequence[str],
        decoding: Decoding,
        on_text: OnText | None = None,
    ) -> list[list[str]]:
        """Return candidates for each prompt, the best first."""

    def score(self, context: Context, prompts: Sequence[str], answers: Sequence[str]) -> Tensor:
        """Return the log-likelihood (B,) float32 of each answer to its prompt."""

    def bytes_for(self, work: Work) -> int:
        """Return the bytes that are held at once for some work."""
