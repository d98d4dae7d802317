"""Edit lists of MP4 and MOV: which pictures of the medium a movie shows, and when.

FFmpeg's own handling of them shows pictures that a list leaves out and loses others, so it is told
to ignore them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from malmm_cli.media.timeline import usual_gap

__all__ = ["Edit", "Shown", "edits_of", "follow_edits"]

INSIDE = {b"moov", b"trak", b"edts"}
MOST = 10_000  # boxes, or edits, to look at
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


def edits_of(path: str, number: int, unit: float) -> list[Edit]:
    """Return the edits of the stream `number`, whose timestamps count units of `unit` seconds.

    A file without a list, or with a broken one, has none.
    """
    with suppress(OSError, struct.error, ZeroDivisionError), open(path, "rb") as file:
        movie, track = 0.0, -1
        for kind, at in _boxes(file, 0, os.fstat(file.fileno()).st_size):
            file.seek(at)
            head = file.read(32)
            wide = head[:1] == b"\1"
            if kind == b"mvhd":
                movie = 1 / struct.unpack_from(">I", head, 20 if wide else 12)[0]
            elif kind == b"tkhd":
                track = struct.unpack_from(">I", head, 20 if wide else 12)[0]
            elif kind == b"elst" and track == number:
                return list(_read(file, at, movie, unit, wide=wide))
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
    begin = end = due = 0.0
    for number, edit in enumerate(edits):
        length = edit.length
        if edit.medium is None or edit.rate == 0:
            end = due = begin + length
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
                due = begin + min(length, (max(promised, last) - edit.medium) / edit.rate)
        begin += edit.length
    return Shown(
        which=np.concatenate([np.empty(0, np.int64), *which]),
        seconds=np.concatenate([np.empty(0), *seconds]),
        end=end,
        promised=due,
    )


def _read(file: BinaryIO, at: int, movie: float, unit: float, *, wide: bool) -> Iterator[Edit]:
    edit = struct.Struct(">Qqi" if wide else ">Iii")
    file.seek(at + 4)
    count = struct.unpack(">I", file.read(4))[0]
    for _ in range(min(count, MOST)):
        length, medium, rate = edit.unpack(file.read(edit.size))
        yield Edit(length * movie, None if medium < 0 else medium * unit, max(rate, 0) / 65536)


def _boxes(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int]]:
    """Yield (kind, where its body begins) of the boxes from `at` to `end` and in some of them."""
    for _ in range(MOST):
        if at + 8 > end:
            return
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        body = at + 8
        if length == 1:
            length, body = struct.unpack(">Q", file.read(8))[0], at + 16
        stop = at + length if length else end
        if not body <= stop <= end:
            return
        yield kind, body
        if kind in INSIDE:
            yield from _boxes(file, body, stop)
        at = stop
