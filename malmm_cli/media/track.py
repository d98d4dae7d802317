"""What a decoder finds out about a file once, and needs again to read it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from malmm_cli.data import MediaInfo
from malmm_cli.media.geometry import Turn

__all__ = ["Track", "clock"]


@dataclass(frozen=True, kw_only=True)
class Track(MediaInfo):
    """A MediaInfo and where its T pictures lie in the file.

    `container`, `codec` and `stream` are FFmpeg's names and the number of the stream, `turn` what
    has to be done to a decoded picture. `stamps` (T,) float64 are the timestamps of the file in
    seconds, where `seconds` counts from the first picture and never jumps back. `marks` (T,) int64
    name the pictures in the decoder's own terms: their timestamps in units of the stream, or, where
    those cannot be trusted, their numbers. `keys`, ascending, are the marks decoding can start at;
    where there are none the file is decoded from its beginning. `plain` says that the file has
    one stream of pictures, that every packet is a picture, and none is shown before the key picture
    it follows; `fields` that some pictures are two packets, the lines of odd and of even number,
    each with a time and a mark of its own.
    """

    container: str
    codec: str
    stream: int
    turn: Turn
    plain: bool
    fields: bool = False
    stamps: NDArray[np.float64] = field(repr=False)
    marks: NDArray[np.int64] = field(repr=False)
    keys: NDArray[np.int64] = field(repr=False)


def clock(stamps: NDArray[np.float64], rate: float) -> tuple[NDArray[np.float64], float]:
    """Return times (T,) that ascend from 0 for the `stamps` (T,) of pictures, and the usual gap.

    Timestamps may be NaN, for unknown, or start over where streams were joined. A picture then
    comes one gap after the last: the median one, or 1/`rate` where nothing is known.
    """
    steps = np.diff(stamps)
    good = steps > 0
    gap = float(np.median(steps[good])) if good.any() else 1 / rate
    return np.cumsum(np.concatenate([[0.0], np.where(good, steps, gap)])), gap
