"""Edit lists of MP4 that FFmpeg gets wrong: what shows nothing, or one picture, in mid-file."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

__all__ = ["hidden_spans"]

INSIDE = {b"moov", b"trak", b"edts"}
MOST = 10_000  # boxes, or edits, to look at
EMPTY, STILL = -1, 0  # a time in the medium that is none, a rate at which it stands still


def hidden_spans(path: str, number: int) -> list[tuple[float, float]]:
    """Return when, in seconds of the stream `number`, FFmpeg shows what the edit list leaves out.

    An edit without a medium shows nothing, where FFmpeg shows the beginning of the medium; one that
    stands still shows its first picture, where FFmpeg plays on. A broken file has none.
    """
    with suppress(OSError, struct.error, ZeroDivisionError), open(path, "rb") as file:
        unit, track = 0.0, -1
        for kind, at in _boxes(file, 0, os.fstat(file.fileno()).st_size):
            file.seek(at)
            head = file.read(32)
            wide = head[:1] == b"\1"
            if kind == b"mvhd":
                unit = 1 / struct.unpack_from(">I", head, 20 if wide else 12)[0]
            elif kind == b"tkhd":
                track = struct.unpack_from(">I", head, 20 if wide else 12)[0]
            elif kind == b"elst" and track == number:
                return list(_spans(file, at, unit, wide=wide))
    return []


def _spans(file: BinaryIO, at: int, unit: float, *, wide: bool) -> Iterator[tuple[float, float]]:
    edit = struct.Struct(">QqhH" if wide else ">IihH")
    file.seek(at + 4)
    count = struct.unpack(">I", file.read(4))[0]
    begin = 0.0
    for number in range(min(count, MOST)):
        length, medium, rate, _ = edit.unpack(file.read(edit.size))
        end = begin + length * unit
        if medium == EMPTY and number:
            yield begin, end
        elif medium != EMPTY and rate == STILL:
            yield begin + unit, end
        begin = end


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
