"""The part of a picture to show, from MP4 and Matroska headers."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from av.video.stream import VideoStream

from malmm_cli.media.boxes import Boxes
from malmm_cli.media.geometry import NO_MARGINS, Margins

__all__ = ["WHOLE", "Aperture", "aperture_of"]

MOST = 100_000  # elements to look at

# Matroska
SEGMENT, TRACKS, CLUSTER = 0x18538067, 0x1654AE6B, 0x1F43B675
LONGEST = 2**22  # bytes of its descriptions of tracks
TRACK, KIND, CODEC, VIDEO = 0xAE, 0x83, 0x86, 0xE0
KINDS = {1, 2, 17, 33}  # what FFmpeg makes streams of, one after the other
CROP = (0x54CC, 0x54BB, 0x54DD, 0x54AA)  # left, top, right, bottom
WIDTH, HEIGHT, UNIT, UNKNOWN = 0x54B0, 0x54BA, 0x54B2, 4


@dataclass(frozen=True)
class Aperture:
    """`margins` to cut off a decoded picture, and the shape of what is left of it.

    `display` is its width and height in any unit, None where FFmpeg's pixel aspect holds.
    """

    margins: Margins = NO_MARGINS
    display: tuple[int, int] | None = None


WHOLE = Aperture()


def aperture_of(
    path: str, boxes: Boxes | None, container: str, stream: VideoStream, size: tuple[int, int]
) -> Aperture:
    """Return what a file says of the pictures of a stream, which are decoded to `size`.

    `boxes` are those of an MP4 file.
    """
    found = WHOLE
    # what is broken here says nothing
    with suppress(OSError, struct.error, IndexError):
        if boxes and (clap := boxes.tracks.get(stream.id, {}).get(b"clap")):
            found = Aperture(_margins(struct.unpack(">8i", clap), size))
        elif container == "matroska,webm":
            with open(path, "rb") as file:
                found = _matroska(file, stream.index)
    left, top, right, bottom = found.margins
    return found if left + right < size[0] and top + bottom < size[1] else WHOLE


def _read(file: BinaryIO, at: int, length: int) -> bytes:
    file.seek(at)
    return file.read(length)


# --- MP4


def _margins(clap: tuple[int, ...], size: tuple[int, int]) -> Margins:
    """Return the margins of a clean aperture: width, height and shift of its centre, as ratios."""
    if min(clap[1::2]) < 1:
        return NO_MARGINS
    width, height, across, down = (clap[k] / clap[k + 1] for k in (0, 2, 4, 6))
    left, top = (size[0] - width) / 2 + across, (size[1] - height) / 2 + down
    margins = (left, top, size[0] - width - left, size[1] - height - top)
    if min(width, height, *(margin + 0.5 for margin in margins)) <= 0:
        return NO_MARGINS
    left, top, right, bottom = (max(round(margin), 0) for margin in margins)
    return left, top, right, bottom


# --- Matroska


def _matroska(file: BinaryIO, number: int) -> Aperture:
    at, end = 0, os.fstat(file.fileno()).st_size
    for _ in range(MOST):
        identity, length, head = _element(_read(file, at, 12), 0)
        if identity == TRACKS and length <= LONGEST:
            tracks = [
                track for track in _parts(_read(file, at + head, length)) if track[0] == TRACK
            ]
            return _track([dict(_parts(body)) for _, body in tracks], number)
        if identity == CLUSTER or at >= end:
            break
        at += head if identity == SEGMENT else head + length
    return WHOLE


def _track(tracks: list[dict[int, bytes]], number: int) -> Aperture:
    streams = [track for track in tracks if _number(track, KIND) in KINDS and CODEC in track]
    video = dict(_parts(streams[number][VIDEO])) if VIDEO in streams[number] else {}
    left, top, right, bottom = (_number(video, side) for side in CROP)
    # FFmpeg passes over a shape in unknown units; players show it
    display = (_number(video, WIDTH), _number(video, HEIGHT))
    odd = _number(video, UNIT) == UNKNOWN and min(display) > 0
    return Aperture((left, top, right, bottom), display if odd else None)


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (identity, body) of the elements in this one."""
    at = 0
    while at < len(data):
        identity, length, head = _element(data, at)
        yield identity, data[at + head : at + head + length]
        at += head + length


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """Return an element's identity, the length of its body and that of its head."""
    identity = 9 - data[at].bit_length()  # bytes that it takes
    size = 9 - data[at + identity].bit_length()
    head = data[at : at + identity + size]
    length = int.from_bytes(head[identity:], "big") & ((1 << 7 * size) - 1)
    return int.from_bytes(head[:identity], "big"), length, identity + size


def _number(parts: dict[int, bytes], identity: int) -> int:
    return int.from_bytes(parts.get(identity, b""), "big")
