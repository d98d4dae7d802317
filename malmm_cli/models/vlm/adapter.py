"""What differs between vision-language models; everything else of the family is shared.

An adapter says how frames become rows, how the model's own prompt names the moments of a video,
where tokens stand, and how its language model is called. Models are transformers' own, unchanged.

Letters: T features of P tokens, C their width, S slots, L tokens of a prompt, D levels beside the
rows (DeepStack).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

__all__ = ["Adapter", "Tokens"]


@dataclass(frozen=True)
class Tokens:
    """What a language model reads: `embeds` (B, L, C) at `positions` (A, B, L), A axes.

    `visual` (L,) bool are the tokens of slots; `levels` (D, n, C) are added to those n behind the
    first D layers.
    """

    embeds: Tensor
    positions: Tensor
    visual: Tensor | None = None
    levels: Tensor | None = None

    def some(self, which: slice) -> Tokens:
        """Return those of some positions, in a row."""
        embeds, positions = self.embeds[:, which], self.positions[..., which]
        if self.visual is None:
            return Tokens(embeds, positions)
        visual = self.visual[which]
        before = int(self.visual[: which.start].sum())
        own = slice(before, before + int(visual.sum()))
        levels = None if self.levels is None else self.levels[:, own]
        return Tokens(embeds, positions, visual, levels)

    def before(self, words: Tokens) -> Tokens:
        """Return these (1, L, C) before each of words (B, l, C), which have no slots."""
        number, length = words.embeds.shape[:2]
        embeds = torch.cat([self.embeds.expand(number, -1, -1), words.embeds], 1)
        positions = torch.cat([self.positions.expand(-1, number, -1), words.positions], 2)
        visual = self.visual
        if visual is not None:
            visual = torch.cat([visual, visual.new_zeros(length)])
        return Tokens(embeds, positions, visual, self.levels)


@dataclass(frozen=True)
class Adapter(ABC):
    """One architecture, with the configuration of a model of it.

    `kind` is the class in transformers, and `since` the oldest version that goes on from a cache:
    before 5.2 `generate` does not count on from positions that it is given. `marks` are
    the tokens of its prompt's form, which its tokenizer and its template must know; the first ends
    an answer. A conversation begins with `opening`, and its template, given `variables`, puts
    `video` behind that for a video, whose own text ends with `closing`.
    """

    config: Any = field(repr=False)

    kind: ClassVar[str]
    since: ClassVar[str]
    marks: ClassVar[tuple[str, ...]]
    parts: ClassVar[Mapping[str, str]]  # of the configuration: how names of their tensors begin
    encoder: ClassVar[tuple[str, ...]]  # how the names of its tensors begin
    projector: ClassVar[tuple[str, ...]]  # likewise
    frames_per_feature: ClassVar[int] = 1
    axes: ClassVar[int] = 1
    recurrent: ClassVar[bool] = False  # a cache cannot be read beside padding
    template: ClassVar[tuple[str, ...]]  # what a folder's chat template has in it
    unused: ClassVar[tuple[str, ...]] = ()  # how names of tensors begin that nothing needs
    opening: ClassVar[str] = "<|im_start|>user\n"
    video: ClassVar[str] = "<video>"
    closing: ClassVar[str] = ""
    variables: ClassVar[Mapping[str, Any]] = {}

    @property
    def processor(self) -> Mapping[str, Any]:
        """What a folder's processor says where it is as published."""
        return {}

    @property
    def width(self) -> int:
        """C, that of the language model."""
        return int(self.config.text_config.hidden_size)

    @property
    def levels(self) -> int:
        """D, levels beside the rows."""
        return 0

    @property
    def patches(self) -> int | None:
        """P, or None where it depends on the shape of the video."""
        return None

    @property
    def most(self) -> int:
        """The most tokens that a feature can have."""
        assert self.patches is not None
        return self.patches

    @property
    def pixels(self) -> tuple[Sequence[float], Sequence[float]]:
        """Mean and spread of the pixels, by channel."""
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    @property
    def token(self) -> int:
        """The id that stands for each token of a slot in transformers' own prompts."""
        return int(getattr(self.config, "video_token_id", self.config.image_token_id))

    @property
    def forms(self) -> Mapping[str, Adapter]:
        """Adapters that write prompts as other versions do, by what differs; itself the first."""
        return {"": self}

    @abstractmethod
    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) of the frames that `encode` takes of such a video."""

    def normalised(self, frames: Tensor) -> Tensor:
        """Return the pixels (T k, 3, H, W) float32 of frames (T k, H, W, 3) uint8."""
        mean, spread = (
            torch.tensor(values, device=frames.device)[:, None, None] for values in self.pixels
        )
        return (frames.permute(0, 3, 1, 2) / 255 - mean) / spread

    @abstractmethod
    def encode(self, net: Any, pixels: Tensor) -> Tensor:
        """Return rows (T, P, C (1 + D)) of normalised frames (T k, 3, H, W), k of them a feature.

        The levels follow the rows, which the projector made.
        """

    def inputs(self, pixels: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """Return what transformers' class takes beside the ids (1, L) of its own prompt.

        `pixels` (T k, 3, H, W) are normalised frames; no names but those of its `forward`.
        """
        return {"pixel_values": pixels}

    @property
    @abstractmethod
    def joined(self) -> int:
        """Patches of the encoder that the projector makes one token of."""

    @property
    def projected_width(self) -> int:
        """Columns that a part of the projector takes at a time."""
        return int(self.config.vision_config.hidden_size) * self.joined

    @abstractmethod
    def projectors(self, net: Any) -> list[Any]:
        """Return the parts of the projector: the one that makes rows, then one for each level."""

    @abstractmethod
    def prefix(self, spans: Sequence[tuple[float, float]]) -> list[str]:
        """Return the S + 1 texts around S slots, whose pictures are shown from and to `spans`.

        Each begins and ends at a token of its own, but for the beginning of the first.
        """

    @abstractmethod
    def question(self, prompt: str) -> str:
        """Return the text behind the last slot, up to where the answer begins."""

    @abstractmethod
    def language(self, net: Any) -> Any:
        """Return the language model without its head."""

    def places(self, height: int, width: int) -> Tensor:
        """Return row and column (P, 2) of each token of a frame of that many pixels."""
        raise NotImplementedError("positions count on; they have no rows and columns")

    def slot_positions(self, places: Tensor) -> tuple[Tensor, int]:
        """Return where the tokens of a slot stand (A, P), from 0, and where the next one stands.

        `places` (P, 2) are row and column of each token in the picture.
        """
        number = len(places)
        return torch.arange(number)[None], number

    def read(self, net: Any, tokens: Tokens, cache: Any) -> Tensor:
        """Return what the language model makes of tokens, (B, L, C).

        They come after those in the cache; None where they are the first, and are not kept.
        """
        hidden: Tensor = self._called(net, tokens, cache).last_hidden_state
        return hidden

    def weights(self, net: Any, tokens: Tokens, cache: Any) -> list[Tensor]:
        """Return the attention weights (B, heads, L, all) of the layers that have some."""
        found = self._called(net, tokens, cache, output_attentions=True).attentions
        return [layer for layer in found if layer is not None]

    def _called(self, net: Any, tokens: Tokens, cache: Any, **how: Any) -> Any:
        return self.language(net)(
            inputs_embeds=tokens.embeds,
            position_ids=tokens.positions if self.axes > 1 else tokens.positions[0],
            past_key_values=cache,
            use_cache=cache is not None,
            **self.beside(tokens),
            **how,
        )

    def beside(self, tokens: Tokens) -> dict[str, Any]:
        """Return what else the language model is called with."""
        return {}
