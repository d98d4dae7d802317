"""Pieces of sound → one stream without gaps, on a clock that starts at sample 0."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Piece", "on_clock"]


class Piece(NamedTuple):
    """Samples (C, n) float32 that belong at sample `place`; what is not in [low, high) is cut."""

    place: int
    samples: NDArray[np.float32]
    low: int | None = None
    high: int | None = None


def on_clock(
    pieces: Iterator[Piece], channels: int, longest: int, first: int = 0, last: int | None = None
) -> Iterator[NDArray[np.float32]]:
    """Yield chunks (C, n), n ≤ `longest`, that are the samples from `first` on, to `last` if given.

    What lies between pieces is silence; of pieces that overlap the earlier one is kept.
    """
    position = first
    for piece in pieces:
        if last is not None and position >= last:
            return
        low = max(position, piece.place, piece.place if piece.low is None else piece.low)
        end = piece.place + piece.samples.shape[1]
        high = min(limit for limit in (end, piece.high, last) if limit is not None)
        if high <= low:
            continue
        yield from _silence(low - position, channels, longest)
        samples = piece.samples[:, low - piece.place : high - piece.place]
        for begin in range(0, samples.shape[1], longest):
            yield samples[:, begin : begin + longest]
        position = high
    if last is not None:
        yield from _silence(last - position, channels, longest)


def _silence(count: int, channels: int, longest: int) -> Iterator[NDArray[np.float32]]:
    while count > 0:
        length = min(count, longest)
        yield np.zeros((channels, length), np.float32)
        count -= length
