"""When the slots of a memory begin and end: they partition the frames seen."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Slots", "frame_seconds", "spans"]


class Slots(NamedTuple):
    """What a memory holds of a video, in order of time.

    `rows` (S, P, C), `counts` (S, P) int64 of the frames that each stands for, and `seconds`
    (S, P, 2) float64, when its first picture and its last are shown. The newest frame is the last
    slot, on its own.
    """

    rows: Tensor
    counts: Tensor
    seconds: Tensor


def spans(counts: Tensor, seconds: Tensor) -> Tensor:
    """When the frames of each slot begin and end, (S, P, 2), of counts (S, P) and seconds (T, 2).

    Slots follow one another and the last one ends with the last frame: a merge joins neighbours,
    and what a bank drops is its oldest.
    """
    first, end = _places(counts, len(seconds))
    seconds = seconds.to(counts.device)
    return torch.stack([seconds[first, 0], seconds[end - 1, 1]], dim=-1)


def frame_seconds(slots: Slots, frames: int) -> Tensor:
    """Return the seconds (T, 2) of frames that slots need; NaN elsewhere."""
    first, end = _places(slots.counts, frames)
    found = slots.seconds.new_full((frames, 2), torch.nan)
    found[first, 0], found[end - 1, 1] = slots.seconds[..., 0], slots.seconds[..., 1]
    return found


def _places(counts: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Return the first frame of each slot and the end (exclusive), (S, P) each."""
    end = frames - counts.sum(0) + counts.cumsum(0)
    return end - counts, end
