"""What two paths through one model are compared by."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Reading"]


class Reading(NamedTuple):
    """What one path through a model makes of a prompt about a video: l of L tokens are behind it.

    `ids` (L) are those of the prompt, `logits` (l, V) float32 those at the tokens behind the video,
    `answer` the greedy answer and `tokens` (n) its ids, `steps` (n, V) float32 the logits that each
    of these was chosen by, where they are known. Tensors are on the CPU.
    """

    ids: list[int]
    logits: Tensor
    answer: str
    tokens: list[int]
    steps: Tensor | None = None
