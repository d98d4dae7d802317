"""The slots of a memory, and when they begin and end: they partition the features seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Slots", "feature_seconds", "places", "spans"]


class Slots(NamedTuple):
    """What a memory holds of a video, in order of time.

    `rows` (S, P, C) float32, `counts` (S, P) int64 of the features that each stands for, and
    `seconds` (S, P, 2) float64, when its first picture and its last are shown. `riders` (S, P, W)
    float32 are merged with the weights of the rows. The newest feature is the last slot, on its
    own.

    `shown` (S, 2) float64 are given where each slot is one of its features as the encoder made it,
    at all positions: when the first picture of that feature and its last are shown.
    """

    rows: Tensor
    counts: Tensor
    seconds: Tensor
    riders: Mapping[str, Tensor] = {}
    shown: Tensor | None = None


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
    if slots.shown is not None:
        found[places(slots, features)] = slots.shown
    return found


def places(slots: Slots, features: int) -> Tensor:
    """Return which of T features each slot is, (S,) int64, of slots that are `shown`.

    Exact for the first and the last that a slot stands for; one between them is put between them.
    """
    assert slots.shown is not None
    first, end = (place[:, 0] for place in _places(slots.counts, features))
    begin, stop = slots.seconds[:, 0].unbind(-1)
    between = torch.minimum(first + 1, end - 1)
    place = torch.where(slots.shown[:, 1] == stop, end - 1, between)
    return torch.where(slots.shown[:, 0] == begin, first, place)


def _places(counts: Tensor, features: int) -> tuple[Tensor, Tensor]:
    """Return the first feature of each slot and the end (exclusive), (S, P) each."""
    end = features - counts.sum(0) + counts.cumsum(0)
    return end - counts, end
