"""What a decoder finds out about a file once and needs again to read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from malmm_cli.media.geometry import NO_MARGINS, Margins, Turn
from malmm_cli.media.limits import MAX_PIXELS
from malmm_cli.media.timeline import Splices
from malmm_cli.types import MediaInfo

__all__ = ["Track", "in_file_order"]


@dataclass(frozen=True, kw_only=True)
class Track(MediaInfo):
    """A MediaInfo and where its T pictures lie in the file.

    `container`, `codec` and `stream` are FFmpeg's names and the number of the stream, `turn` what
    has to be done to a decoded picture. `stamps` (T,) float64 are the timestamps of the file in
    seconds, where `seconds` counts from the first picture and never jumps back.

    `marks` (T,) int64 tell decoded pictures apart: by their timestamps in the medium, in units of
    `unit` seconds and behind `splices` continued, or, where the track is `counted`, by their
    numbers. `keys` (K,) are the pictures, ascending, that decoding can start at, `targets` (K,)
    what to seek to for them: timestamps of the file, or bytes where there are splices. With no keys
    the file is decoded from its beginning. `parts` are the pictures before which an edit list goes
    back in the file.

    `plain` says that the file has one stream of pictures, that every packet is a picture that is
    shown, and none is shown before the key picture it follows; `fields` that some pictures are two
    packets, the lines of odd and of even number, each with a time and a mark of its own; `alpha`
    that they may be transparent in places. `margins`, left, top, right and bottom, are cut off
    pictures of the size `coded`. A picture of more than `max_pixels` is not decoded.
    """

    container: str
    codec: str
    stream: int
    turn: Turn
    plain: bool
    counted: bool = False
    fields: bool = False
    splices: Splices | None = None
    parts: tuple[int, ...] = (0,)
    unit: float = 1.0
    alpha: bool = False
    margins: Margins = NO_MARGINS
    coded: tuple[int, int] = (0, 0)
    max_pixels: int = MAX_PIXELS
    stamps: NDArray[np.float64] = field(repr=False)
    marks: NDArray[np.int64] = field(repr=False)
    keys: NDArray[np.int64] = field(repr=False)
    targets: NDArray[np.int64] = field(repr=False)

    @property
    def as_stamped(self) -> bool:
        """Whether pictures are shown in the order of their timestamps, but for an edit list."""
        if self.counted or self.fields or self.splices is not None:
            return False
        return all((np.diff(part.marks) > 0).all() for _, part in in_file_order(self))


def in_file_order(track: Track) -> Iterator[tuple[int, Track]]:
    """Yield (number of the first picture, marks and keys of a part) for each of the parts."""
    for first, stop in pairwise((*track.parts, len(track.marks))):
        keys = (first <= track.keys) & (track.keys < stop)
        yield (
            first,
            replace(
                track,
                parts=(0,),
                marks=track.marks[first:stop],
                keys=track.keys[keys] - first,
                targets=track.targets[keys],
            ),
        )
