"""The slots of a memory, and when they begin and end: they partition the features seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Slots", "feature_seconds", "spans"]


class Slots(NamedTuple):
    """What a memory holds of a video, in order of time.

    `rows` (S, P, C) float32, `counts` (S, P) int64 of the features that each stands for, and
    `seconds` (S, P, 2) float64, when its first picture and its last are shown. `riders` (S, P, W)
    float32 are merged with the weights of the rows. The newest feature is the last slot, on its
    own.
    """

    rows: Tensor
    counts: Tensor
    seconds: Tensor
    riders: Mapping[str, Tensor] = {}


def spans(counts: Tensor, seconds: Tensor) -> Tensor:
    """When the features of each slot begin and end, (S, P, 2), of counts (S, P), seconds (T, 2).

    Slots follow one another and the last one ends with the last feature: a merge joins neighbours,
    and what a bank drops is its oldest.
    """
    first, end = _places(counts, len(seconds))
    seconds = seconds.to(counts.device)
    return torch.stack([seconds[first, 0], seconds[end - 1, 1]], dim=-1)


def feature_seconds(slots: Slots, features: int) -> Tensor:
    """Return the seconds (T, 2) of T features that slots need; NaN elsewhere."""
    first, end = _places(slots.counts, features)
    found = slots.seconds.new_full((features, 2), torch.nan)
    found[first, 0], found[end - 1, 1] = slots.seconds[..., 0], slots.seconds[..., 1]
    return found


def _places(counts: Tensor, features: int) -> tuple[Tensor, Tensor]:
    """Return the first feature of each slot and the end (exclusive), (S, P) each."""
    end = features - counts.sum(0) + counts.cumsum(0)
    return end - counts, end
