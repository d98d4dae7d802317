"""The values that travel between modules: what a file holds, one picture, one piece of text."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Frame", "MediaInfo", "Segment"]


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds, found by reading its packets and no container header.

    `seconds` (T,) float64, ascending, starts at 0.0: the time of every picture that is shown,
    counted from the first one. `duration` runs from the first picture to the end of the last.
    `source_start` is the first picture's own timestamp in the file. `width` and `height` are
    those of the display: rotated, with square pixels.
    """

    path: str
    decoder: str
    width: int
    height: int
    duration: float
    source_start: float
    seconds: NDArray[np.float64] = field(repr=False)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frame:
    """One picture: `pixels` (H, W, 3) uint8 RGB, upright, square pixels, and its time."""

    seconds: float
    source_seconds: float
    pixels: NDArray[np.uint8] = field(repr=False)


@dataclass(frozen=True)
class Segment:
    """A piece of text about the video from `start` to `end` seconds."""

    start: float
    end: float
    text: str
