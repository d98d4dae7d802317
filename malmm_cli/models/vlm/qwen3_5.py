"""Qwen3.5: Qwen3-VL's eyes and prompt without DeepStack, before a recurrent language model."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from malmm_cli.models.vlm.adapter import Tokens
from malmm_cli.models.vlm.qwen3_vl import Qwen3VL

__all__ = ["Qwen35"]


class Qwen35(Qwen3VL):
    """Three of four layers keep a state in place of keys and values."""

    kind = "Qwen3_5ForConditionalGeneration"
    since = "5.7"  # earlier ones read no more than one token on from a state
    recurrent = True
    variables: ClassVar = {"enable_thinking": False}
    unused = ("mtp.",)  # predicts several tokens at once; transformers' class has no such part

    @property
    def levels(self) -> int:
        """It has none."""
        return 0

    def question(self, prompt: str) -> str:
        """The answer begins behind an empty thought."""
        return f"{super().question(prompt)}<think>\n\n</think>\n\n"

    def beside(self, tokens: Tokens) -> dict[str, Any]:
        """Nothing."""
        return {}

    def _levels(self, found: Any) -> list[Tensor]:
        return []
