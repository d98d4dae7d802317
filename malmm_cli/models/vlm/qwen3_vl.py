"""Qwen3-VL: pairs of frames of any shape, seconds in the text, positions of three axes, levels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from malmm_cli.models.vlm.adapter import Adapter, Tokens

__all__ = ["Qwen3VL"]

# Tokens of a feature: what its language model reads of a slot. Its own tools use 128 to 768.
FEWEST, MOST = 64, 144


@dataclass(frozen=True)
class Qwen3VL(Adapter):
    """Bai et al., Qwen3-VL Technical Report, 2025.

    `outer` puts one more pair of marks around the whole video: from 5.12 on transformers leaves
    that of the published template there, the original code and earlier versions do not.
    """

    outer: bool = False

    kind = "Qwen3VLForConditionalGeneration"
    since = "5.2"
    marks = ("<|im_end|>", "<|im_start|>", "<|vision_start|>", "<|vision_end|>")
    parts: ClassVar = {"vision_config": "model.visual.", "text_config": "model.language_model."}
    encoder = ("model.visual.patch_embed.", "model.visual.pos_embed.", "model.visual.blocks.")
    projector = ("model.visual.merger.", "model.visual.deepstack_merger_list.")
    template = ("<|im_start|>", "<|im_end|>", "<|vision_start|>")
    frames_per_feature = 2
    axes = 3
    video = "<|vision_start|><|video_pad|><|vision_end|>"

    @property
    def processor(self) -> Mapping[str, Any]:
        """Sizes of patches, in pixels and frames."""
        vision = self.config.vision_config
        return {
            "patch_size": vision.patch_size,
            "temporal_patch_size": vision.temporal_patch_size,
            "merge_size": vision.spatial_merge_size,
        }

    @property
    def levels(self) -> int:
        """Levels of DeepStack."""
        return len(self.config.vision_config.deepstack_visual_indexes)

    @property
    def most(self) -> int:
        """The most tokens of a pair."""
        return MOST

    @property
    def forms(self) -> Mapping[str, Qwen3VL]:
        """Without and with `outer`."""
        more = "a pair of marks around the whole video, as of transformers 5.12"
        return {"": self, more: replace(self, outer=True)}

    @property
    def side(self) -> int:
        """Pixels of a token's side."""
        vision = self.config.vision_config
        return int(vision.patch_size * vision.spatial_merge_size)

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """Keep the shape, in FEWEST to MOST tokens."""
        across, down = width / self.side, height / self.side
        scale = math.sqrt(min(max(across * down, FEWEST), MOST) / (across * down))
        across, down = (max(round(tokens * scale), 1) for tokens in (across, down))
        while across * down > MOST:
            across, down = (across - 1, down) if across > down else (across, down - 1)
        return across * self.side, down * self.side

    def encode(self, net: Any, pixels: Tensor) -> Tensor:
        """Each pair on its own: rows, then the levels."""
        grid, patches = self._patches(pixels)
        encoder = net.model.visual
        found = encoder(patches.to(encoder.dtype), grid_thw=grid, return_dict=True)
        rows = torch.cat([found.pooler_output, *self._levels(found)], dim=-1)
        return rows.view(len(grid), -1, rows.shape[-1])

    def inputs(self, pixels: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """All pairs as one grid; 2 marks the tokens of a video."""
        grids, patches = self._patches(pixels)
        grid = grids[:1] * torch.tensor([len(grids), 1, 1], device=grids.device)
        types = {"mm_token_type_ids": (ids == self.token) * 2}
        return {"pixel_values_videos": patches, "video_grid_thw": grid, **types}

    @property
    def joined(self) -> int:
        """A square of them."""
        return int(self.config.vision_config.spatial_merge_size**2)

    @property
    def projected_width(self) -> int:
        """Those of a patch: it joins them itself."""
        return int(self.config.vision_config.hidden_size)

    def projectors(self, net: Any) -> list[Any]:
        """The last merger, and that of each level."""
        encoder = net.model.visual
        return [encoder.merger, *(encoder.deepstack_merger_list if self.levels else ())]

    def places(self, height: int, width: int) -> Tensor:
        """Row and column of each token of a frame of that many pixels, (P, 2)."""
        rows, columns = torch.arange(height // self.side), torch.arange(width // self.side)
        return torch.cartesian_prod(rows, columns)

    def prefix(self, spans: Sequence[tuple[float, float]]) -> list[str]:
        """`<3.5 seconds>` before each slot, the middle of its pictures."""
        opened = [f"<{(start + end) / 2:.1f} seconds><|vision_start|>" for start, end in spans]
        first, *others = opened
        begin, end = ("<|vision_start|>", "<|vision_end|>") if self.outer else ("", "")
        return [
            f"{self.opening}{begin}{first}",
            *(f"<|vision_end|>{text}" for text in others),
            f"<|vision_end|>{end}",
        ]

    def question(self, prompt: str) -> str:
        """The rest of the user's turn, and the beginning of the answer."""
        return f"{prompt}<|im_end|>\n<|im_start|>assistant\n"

    def language(self, net: Any) -> Any:
        """The language model."""
        return net.model.language_model

    def slot_positions(self, places: Tensor) -> tuple[Tensor, int]:
        """One moment; rows and columns beside it."""
        rows, columns = places.unbind(-1)
        size = int(places.max()) + 1
        return torch.stack([torch.zeros_like(rows), rows, columns]), size

    def beside(self, tokens: Tokens) -> dict[str, Any]:
        """The levels, at the tokens of slots."""
        if tokens.visual is None or tokens.levels is None or not tokens.visual.any():
            return {}
        visual = tokens.visual.expand(len(tokens.embeds), -1)
        levels = tokens.levels.repeat(1, len(tokens.embeds), 1)
        return {"visual_pos_masks": visual, "deepstack_visual_embeds": list(levels)}

    def _levels(self, found: Any) -> list[Tensor]:
        levels: list[Tensor] = found.deepstack_features
        return levels

    def _patches(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's input: one grid (T, 3) a pair, and patches in blocks (T N, pixels)."""
        vision = self.config.vision_config
        per, patch, merge = vision.temporal_patch_size, vision.patch_size, vision.spatial_merge_size
        down, across = (size // (patch * merge) for size in pixels.shape[-2:])
        split = pixels.view(-1, per, 3, down, merge, patch, across, merge, patch)
        patches = split.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).flatten(5).flatten(0, 4)
        grid = torch.tensor([[1, down * merge, across * merge]], device=pixels.device)
        return grid.expand(len(split), -1), patches
