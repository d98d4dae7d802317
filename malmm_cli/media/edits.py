"""Edit lists of MP4 and MOV: which pictures a movie shows, and when.

FFmpeg's own handling of them shows pictures that a list leaves out and loses others, so it is told
to ignore them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from malmm_cli.media.boxes import MOST_EDITS, Boxes
from malmm_cli.media.timeline import usual_gap

__all__ = ["Edit", "Shown", "edits_of", "follow_edits"]

SLACK = 0.002  # seconds; a movie's times may be rounded to 1/600 s


@dataclass(frozen=True)
class Edit:
    """A part of a movie: `length` seconds that show the medium from second `medium` on.

    None shows nothing. At `rate` 0 the picture stands still, at 2 it runs twice as fast.
    """

    length: float
    medium: float | None
    rate: float


@dataclass(frozen=True)
class Shown:
    """The T pictures that edits show: `which` (T,) of the medium, when (`seconds`, (T,)).

    The last one leaves the screen at `end`; `promised` is when it would in an undamaged file.
    """

    which: NDArray[np.int64]
    seconds: NDArray[np.float64]
    end: float
    promised: float


def edits_of(boxes: Boxes, number: int, unit: float) -> list[Edit]:
    """Return the edits of the track `number`, whose timestamps count units of `unit` seconds.

    A file without a list, or with a broken one, has none.
    """
    head, body = boxes.movie.get(b"mvhd", b""), boxes.tracks.get(number, {}).get(b"elst", b"")
    with suppress(struct.error, ZeroDivisionError):
        movie = 1 / struct.unpack_from(">I", head, 20 if head[:1] == b"\1" else 12)[0]
        edit = struct.Struct(">Qqi" if body[:1] == b"\1" else ">Iii")
        count = min(struct.unpack_from(">I", body, 4)[0], MOST_EDITS)
        found = [edit.unpack_from(body, 8 + edit.size * k) for k in range(count)]
        return [
            Edit(length * movie, None if medium < 0 else medium * unit, max(rate, 0) / 65536)
            for length, medium, rate in found
        ]
    return []


def follow_edits(
    edits: Sequence[Edit],
    stamps: NDArray[np.float64],
    last: float,
    *,
    unit: float,
    promised: float,
) -> Shown:
    """Return what `edits` show of the pictures that begin at `stamps` (M,), ascending seconds.

    The medium, whose times count units of `unit` seconds, ends at `last`, and in an undamaged file
    at `promised`. As in FFmpeg, a picture that
    begins before its part is not shown, unless it stays on the screen for longer than is usual.
    """
    gap = float(usual_gap(stamps)) or last - stamps[-1]
    slack = min(SLACK, gap / 4)
    ends = np.append(stamps[1:], last)
    which, seconds = [], []
    begin = end = expected = 0.0
    for number, edit in enumerate(edits):
        length = edit.length
        if edit.medium is None or edit.rate == 0:
            end = expected = begin + length
        if edit.medium is not None and edit.rate == 0:
            still = np.searchsorted(stamps, edit.medium + slack, "right") - 1
            which.append(np.array([max(still, 0)]))
            seconds.append(np.array([begin]))
        elif edit.medium is not None:
            stop = edit.medium + length * edit.rate
            if 0 < promised <= stop + slack or (not length and number == len(edits) - 1):
                length = stop = np.inf  # to the end of the medium, wherever it is
            low, high = np.searchsorted(stamps, [edit.medium - slack, stop - slack])
            if low and min(ends[low - 1], stop) - edit.medium > gap + slack:
                low -= 1
            which.append(np.arange(low, high))
            # whole units are subtracted, so that the times are those of a file without a list
            units = np.round(stamps[low:high] / unit, 6) - round(edit.medium / unit)
            seconds.append(begin + units.clip(0) * unit / edit.rate)
            if low < high:
                end = begin + min(length, (ends[high - 1] - edit.medium) / edit.rate)
                expected = begin + min(length, (max(promised, last) - edit.medium) / edit.rate)
        begin += edit.length
    return Shown(
        which=np.concatenate([np.empty(0, np.int64), *which]),
        seconds=np.concatenate([np.empty(0), *seconds]),
        end=end,
        promised=expected,
    )
