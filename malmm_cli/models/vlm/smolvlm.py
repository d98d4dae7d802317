"""SmolVLM2: square frames of 64 tokens, each with its minute and second in the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar

from torch import Tensor

from malmm_cli.models.vlm.adapter import Adapter
from malmm_cli.text.words import number_word

__all__ = ["SmolVLM"]

MARK = "<fake_token_around_image>"
OPENED = f"{MARK}<global-img>"


class SmolVLM(Adapter):
    """Marafioti et al., SmolVLM, 2025."""

    kind = "SmolVLMForConditionalGeneration"
    since = "5.2"
    marks = ("<end_of_utterance>", "<|im_start|>", MARK, "<global-img>")
    parts: ClassVar = {"vision_config": "model.vision_model.", "text_config": "model.text_model."}
    encoder = ("model.vision_model.",)
    projector = ("model.connector.",)
    template = ("<|im_start|>", "<end_of_utterance>", "Assistant:")
    opening = "<|im_start|>User: "
    closing = "\n\n"

    @property
    def processor(self) -> Mapping[str, Any]:
        """Tokens of a frame."""
        return {"image_seq_len": self.patches}

    @property
    def patches(self) -> int:
        """Tokens of a frame."""
        vision = self.config.vision_config
        return int((vision.image_size // vision.patch_size // self.config.scale_factor) ** 2)

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """A square, whatever the shape."""
        size = int(self.config.vision_config.image_size)
        return size, size

    def encode(self, net: Any, pixels: Tensor) -> Tensor:
        """The encoder's patches, four by four together, projected."""
        vision = net.model.vision_model
        seen = vision(pixel_values=pixels.to(vision.dtype)).last_hidden_state
        rows: Tensor = net.model.connector(seen)
        return rows

    def inputs(self, pixels: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """One video in a batch."""
        return {"pixel_values": pixels[None]}

    @property
    def joined(self) -> int:
        """A square of them."""
        return int(self.config.scale_factor**2)

    def projectors(self, net: Any) -> list[Any]:
        """Behind the joining of patches."""
        return [net.model.connector.modality_projection]

    def prefix(self, spans: Sequence[tuple[float, float]]) -> list[str]:
        """How many frames of how long a video, then the minute and second of each."""
        moments = [int((start + end) / 2) for start, end in spans]
        length = timedelta(seconds=int(spans[-1][1]))
        opened = [f"\nFrame from {at // 60:02d}:{at % 60:02d}:{OPENED}" for at in moments]
        intro = (
            f"{self.opening}You are provided the following series of "
            f"{number_word(len(spans))} frames from a {length} [H:MM:SS] video.\n"
        )
        first, *others = opened
        return [f"{intro}{first}", *(f"{MARK}{text}" for text in others), MARK]

    def question(self, prompt: str) -> str:
        """The rest of the user's turn, and the beginning of the answer."""
        return f"{self.closing}{prompt}<end_of_utterance>\nAssistant:"

    def language(self, net: Any) -> Any:
        """The language model."""
        return net.model.text_model
