"""InternVL3: square frames of 256 tokens, numbered in the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from malmm_cli.models.vlm.adapter import Adapter

__all__ = ["InternVL"]


class InternVL(Adapter):
    """Zhu et al., InternVL3, 2025."""

    kind = "InternVLForConditionalGeneration"
    since = "5.2"
    marks = ("<|im_end|>", "<|im_start|>", "<img>", "</img>")
    parts: ClassVar = {
        "vision_config": "model.vision_tower.",
        "text_config": "model.language_model.",
    }
    encoder = ("model.vision_tower.",)
    projector = ("model.multi_modal_projector.",)
    template = ("<|im_start|>", "<|im_end|>")

    @property
    def processor(self) -> Mapping[str, Any]:
        """Tokens of a frame."""
        return {"image_seq_length": self.patches}

    @property
    def patches(self) -> int:
        """Tokens of a frame."""
        vision, ratio = self.config.vision_config, self.config.downsample_ratio
        down, across = (
            int(side // patch * ratio)
            for side, patch in zip(vision.image_size, vision.patch_size, strict=True)
        )
        return down * across

    @property
    def pixels(self) -> tuple[Sequence[float], Sequence[float]]:
        """Those of ImageNet, in which it was trained."""
        return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """A square, whatever the shape."""
        down, across = self.config.vision_config.image_size
        return int(across), int(down)

    def encode(self, net: Any, pixels: Tensor) -> Tensor:
        """The encoder's patches, two by two together, projected."""
        found = net.model.get_image_features(pixel_values=pixels.to(net.dtype), return_dict=True)
        rows: Tensor = found.pooler_output
        return rows

    @property
    def joined(self) -> int:
        """A square of them."""
        return int(1 / self.config.downsample_ratio) ** 2

    def projectors(self, net: Any) -> list[Any]:
        """Behind the joining of patches."""
        return [net.model.multi_modal_projector]

    def prefix(self, spans: Sequence[tuple[float, float]]) -> list[str]:
        """The number of each slot, in order; its form has no place for seconds."""
        opened = [f"Frame{number}: <img>" for number in range(1, len(spans) + 1)]
        first, *others = opened
        return [f"{self.opening}{first}", *(f"</img>\n{text}" for text in others), "</img>"]

    def question(self, prompt: str) -> str:
        """The rest of the user's turn, and the beginning of the answer."""
        return f"\n{prompt}<|im_end|>\n<|im_start|>assistant\n"

    def language(self, net: Any) -> Any:
        """The language model."""
        return net.model.language_model
