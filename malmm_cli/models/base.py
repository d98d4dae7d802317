"""The protocol that every model family follows.

A family encodes frames to features, lets a memory observe them one after the other, and gives its
language model a context that is read from the memory at any time. Nothing outside `models` knows
more of a family than this.

Letters: B prompts, T features, P positions of a feature, C their width, W the width of a rider,
S slots of a bank, n context tokens, D their width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from malmm_cli.memory.spans import Slots
from malmm_cli.models.context import Context
from malmm_cli.settings import Decoding, MemoryOptions, Settings

__all__ = [
    "Context",
    "Features",
    "LooksAgain",
    "Memory",
    "OnText",
    "Slots",
    "Spec",
    "Trainable",
    "VideoModel",
    "Work",
]

OnText = Callable[[str], None]


@dataclass(frozen=True)
class Spec:
    """What never changes about a model, and its family's defaults.

    A feature has `patches` positions of `width`, stands for `frames_per_feature` frames and depends
    on `halo` frames before and after them; `patches` is None where it depends on the size of the
    video. `riders` gives the width of each rider by its name. The language model reads `context`
    tokens, None for any number. `policies`, `banks`, `merges`, `means` and `fills` are those that
    its memory has, see `MemoryOptions`. `defaults` are settings by task: "caption", "ask". `parts`
    says how the names of the tensors begin that features ("encoder") and the slots of a memory file
    ("reader") depend on; `heads` is the number of the encoder's attention heads. `bits` are those
    that the language model is stored in, None where it is not quantized. `extends` says whether
    a restored memory can observe more. `training` is that of the family's `Defaults`.
    """

    family: str
    patches: int | None
    width: int
    context: int | None
    policies: tuple[str, ...]
    banks: tuple[str, ...]
    defaults: Mapping[str, Settings]
    parts: Mapping[str, tuple[str, ...]]
    heads: int
    merges: tuple[str, ...] = ("token",)
    means: tuple[str, ...] = ("weighted",)
    fills: tuple[str, ...] = ("mean",)
    looks_again: bool = False
    training: tuple[str, ...] = ()
    bits: int | None = None
    extends: bool = False
    frames_per_feature: int = 1
    halo: int = 0
    riders: Mapping[str, int] = field(default_factory=dict)

    def features(self, frames: int) -> int:
        """Return the number of features of that many frames; the last may have fewer frames."""
        return -(-frames // self.frames_per_feature)

    def shapes(self, number: int, patches: int) -> dict[str, list[int]]:
        """Return the shapes of that many features, by the names of `Features.as_dict`.

        `patches` counts where the spec leaves them open.
        """
        patches = self.patches or patches
        riders = {f"riders.{name}": [number, patches, w] for name, w in self.riders.items()}
        return {"rows": [number, patches, self.width], "seconds": [number, 2], **riders}


class Features(NamedTuple):
    """What an encoder makes of frames.

    `rows` (T, P, C) are what is compared; `seconds` (T, 2) float64, on the CPU, say when the first
    and the last picture of each is shown; `riders` (T, P, W) are merged with the rows' weights.
    """

    rows: Tensor
    seconds: Tensor
    riders: Mapping[str, Tensor] = {}

    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> Features:
        """Return the same on a device, rows and riders in `dtype` (None: as they are)."""
        moved = {name: rider.to(device, dtype) for name, rider in self.riders.items()}
        return Features(self.rows.to(device, dtype), self.seconds, moved)

    def some(self, which: slice) -> Features:
        """Return some of them."""
        riders = {name: rider[which] for name, rider in self.riders.items()}
        return Features(self.rows[which], self.seconds[which], riders)

    def later(self, seconds: float) -> Features:
        """Return the same, shown so much later."""
        return self._replace(seconds=self.seconds + seconds)

    @staticmethod
    def joined(parts: Sequence[Features]) -> Features:
        """Return those of all parts, in their order."""
        riders = {
            name: torch.cat([part.riders[name] for part in parts]) for name in parts[0].riders
        }
        rows = torch.cat([part.rows for part in parts])
        return Features(rows, torch.cat([part.seconds for part in parts]), riders)

    def as_dict(self) -> dict[str, Tensor]:
        """Return contiguous tensors by name, sorted; `from_dict` reads them back."""
        riders = {f"riders.{name}": rider.contiguous() for name, rider in self.riders.items()}
        own = {"rows": self.rows.contiguous(), "seconds": self.seconds.contiguous()}
        return dict(sorted({**own, **riders}.items()))

    @staticmethod
    def from_dict(tensors: Mapping[str, Tensor]) -> Features:
        """Read what `as_dict` made; raises KeyError where rows or seconds are missing."""
        riders = {k.removeprefix("riders."): v for k, v in tensors.items() if k[:7] == "riders."}
        return Features(tensors["rows"], tensors["seconds"], riders)


@dataclass(frozen=True)
class Work:
    """Something whose size in memory is asked for; with B prompts, one of them is meant.

    "frame" is encoding one frame, "feature" keeping one feature; "prompt" is keeping a memory for
    one prompt while so many `features` are observed, `chunk` at a time; "answer" is generating one
    after `context` tokens.
    """

    kind: Literal["frame", "feature", "prompt", "answer"]
    prompts: Sequence[str] = ()
    memory: MemoryOptions = field(default_factory=MemoryOptions)
    decoding: Decoding = field(default_factory=Decoding)
    features: int = 0
    chunk: int = 1
    context: int = 0


class Memory(Protocol):
    """What has been observed of one video; only its family knows what is in it."""

    @property
    def frames(self) -> int:
        """Features observed or skipped, however many frames each stands for."""

    def slots(self) -> Slots:
        """Return copies of what the visual bank holds, then the newest feature.

        Only the newest feature where there is no such bank, or none that is in use. They do not
        depend on prompts.
        """

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
        """Encode frames (T, H, W, 3) uint8 RGB, shown at `seconds` (T,) float64.

        T is a multiple of `frames_per_feature`. `malmm_cli.pipeline.chunks` repeats the last frame
        of a video where it is not, gives each chunk the halo of its neighbours, and leaves out
        what was made of the halo. So the first and last frames are to be encoded as if the video
        began and ended there.
        """

    def check(
        self, prompts: Sequence[str], options: MemoryOptions, decoding: Decoding, features: int
    ) -> None:
        """Raise CapacityError if the language model cannot read what that many features give it."""

    def start(
        self,
        prompts: Sequence[str],
        options: MemoryOptions,
        total: int | None = None,
        skipped: int = 0,
    ) -> M:
        """Return an empty memory for prompts.

        `total` counts the features of the video, if that is known; the first `skipped` of them are
        not observed. Without prompts the memory can be kept, but gives no context.
        """

    def restore(
        self, prompts: Sequence[str], options: MemoryOptions, slots: Slots, features: int
    ) -> M:
        """Return a memory for prompts that holds `slots` of a video with that many features.

        It gives a context; where the spec `extends`, it observes what follows too, in a video of
        unknown length. Rows and riders of slots that are `shown` are as `encode` makes them, though
        another family's memory may have counted their features.
        """

    def observe(self, memory: M, features: Features) -> None:
        """Let memory take in features that follow those it has seen.

        Their rows and riders may be overwritten afterwards.
        """

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


@runtime_checkable
class Trainable(VideoModel[M], Protocol[M]):
    """A family that can be trained: its encoder stays frozen, and what comes after it may learn."""

    stacks_videos: bool
    """Whether it is trained on several videos at once, of as many features each."""

    def encoder(self) -> VideoModel[Any]:
        """Return the model whose `encode` makes what training starts from.

        That is this one, or one that ends before the first part that learns. Only what is asked of
        an encoder can be asked of it.
        """

    def prepare(self, *, positions: int, lora: int | None, seed: int) -> None:
        """Add the parts that learn and that the weights lack; they change nothing at first.

        Each family has some of them: a table of `positions` frame positions, and adapters of rank
        `lora` (None: no adapters) in the language model, whose first values follow from `seed`.
        """

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters that learn, by their names in the folder of weights."""

    def requires_grad_(self, requires_grad: bool) -> object:
        """Switch the gradient of all parameters, as `torch.nn.Module` does."""

    def eval(self) -> object:
        """Switch dropout off everywhere, as `torch.nn.Module` does."""

    def train_reader(self, mode: bool) -> None:
        """Switch dropout of the parts that learn on or off."""

    def training_context(
        self,
        videos: Sequence[Features],
        prompts: Sequence[str],
        options: MemoryOptions,
        *,
        position_gradient: str,
    ) -> Context:
        """Return the context of V whole videos for B prompts, with gradient.

        The first B / V prompts are about the first video, and so on. Videos are as `encoder` makes
        them; one, unless the family `stacks_videos`. `position_gradient` "last" lets a position
        table learn at the last frame only, "all" at every frame.
        """

    def loss(self, context: Context, prompts: Sequence[str], answers: Sequence[str]) -> Tensor:
        """Return the mean cross-entropy () of the tokens of answers after context and prompts."""

    def merged(
        self, base: Mapping[str, Tensor], trained: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the tensors of a folder of weights that `trained` ones take the place of.

        `base` holds the folder's own; names are those of `trainable`.
        """

    def visual_tokens(self, options: MemoryOptions, features: int) -> int:
        """Return how many tokens, at most, a context has after that many features."""

    def text_tokens(self, prompt: str, answers: Sequence[str] = ()) -> int:
        """Return how many tokens it reads of a prompt and the longest of its answers."""

    def answer_tokens(self, answer: str) -> int:
        """Return how many tokens an answer has."""


@runtime_checkable
class LooksAgain(VideoModel[M], Protocol[M]):
    """A family that can say where a prompt looks, and be shown some moments frame by frame."""

    def looks_at(self, context: Context, prompts: Sequence[str]) -> Tensor:
        """Return how much each prompt looks at each slot of its context, (B, S) float32."""

    def look_again(self, memory: M, features: Features, prompts: Sequence[str]) -> Context:
        """Return a context with these features among half of what memory holds."""
