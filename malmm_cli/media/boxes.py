"""MP4 and MOV boxes that FFmpeg or PyAV do not expose: edit lists, clean apertures."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["MOST_EDITS", "Boxes", "boxes_of"]

MOST = 100_000  # boxes to look at
MOST_EDITS = 10_000
EDIT = 20  # bytes of an edit in the larger of its two forms

# Boxes to go into, by the box that they are in, and how many bytes come before what is in them.
# Below `stsd` is any sample entry. What is nested otherwise, perhaps without end, is left alone.
INSIDE = {(b"", b"moov"): 0, (b"moov", b"trak"): 0, (b"trak", b"edts"): 0, (b"trak", b"mdia"): 0}
INSIDE |= {(b"mdia", b"minf"): 0, (b"minf", b"stbl"): 0, (b"stbl", b"stsd"): 8}
ENTRY, ENTRY_SKIPPED = b"entry", 78
# The boxes that are kept, and how many bytes of each.
KEPT = {b"mvhd": 32, b"tkhd": 32, b"elst": 8 + EDIT * MOST_EDITS, b"clap": 32}


@dataclass(frozen=True)
class Boxes:
    """The bodies of a movie's boxes: of the movie as a whole, and by the number of each track."""

    movie: dict[bytes, bytes]
    tracks: dict[int, dict[bytes, bytes]]


def boxes_of(path: str) -> Boxes:
    """Return what is there before anything that is broken."""
    found = Boxes({}, {})
    track: dict[bytes, bytes] = {}
    with suppress(OSError, struct.error, IndexError), open(path, "rb") as file:
        for number, (kind, body) in enumerate(_walk(file, os.fstat(file.fileno()).st_size)):
            if number > MOST:
                break
            if kind == b"trak":
                track = {}
            elif kind == b"tkhd":
                found.tracks[struct.unpack_from(">I", body, 20 if body[0] == 1 else 12)[0]] = track
            (found.movie if kind == b"mvhd" else track).setdefault(kind, body)
    return found


def _walk(file: BinaryIO, end: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and body of tracks and of the boxes that are kept, to the end of `moov`."""
    inside = [(0, end, b"")]  # where a box begins, and the end and kind of the box around it
    while inside:
        at, end, parent = inside.pop()
        if at + 8 > end:
            continue
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        body = at + 8
        if length == 1:
            length, body = struct.unpack(">Q", file.read(8))[0], at + 16
        stop = at + length if length else end
        if not body <= stop <= end:
            continue
        file.seek(body)
        if kind == b"trak" or kind in KEPT:
            yield kind, file.read(min(stop - body, KEPT.get(kind, 0)))
        if kind != b"moov":
            inside.append((stop, end, parent))
        if parent == b"stsd":
            inside.append((body + ENTRY_SKIPPED, stop, ENTRY))
        elif (parent, kind) in INSIDE:
            inside.append((body + INSIDE[parent, kind], stop, kind))
