"""Animated PNG, composed here because FFmpeg and Pillow fail on some colour types."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import av
from av.video.codeccontext import VideoCodecContext
from PIL import Image

from malmm_cli.media.png import GREY, SIGNATURE, chunk_of, chunks_in, with_palette

__all__ = ["SHORTEST", "is_odd", "lengths", "pictures"]

RGB = 2  # a kind of colour
SHORTEST = 11  # milliseconds; browsers show what asks for less for longer
CLEARED, BEFORE = 1, 2  # what becomes of a picture's area


@dataclass
class _Part:
    """One picture: its area, how long it is shown, what becomes of its area, and its data."""

    area: tuple[int, int, int, int]  # x, y, width, height
    milliseconds: float
    dispose: int
    over: bool
    data: list[bytes] = field(default_factory=list)


def is_odd(path: str) -> bool:
    """Say whether this is an animation that FFmpeg shows otherwise than browsers do.

    It composes only 8 bits with alpha or a palette, and has its own idea of a delay of 0.
    """
    header, _, parts = _parts(path)
    odd = header[8] != 8 or header[9] in {GREY, RGB}
    return bool(parts) and (odd or min(part.milliseconds for part in parts) < SHORTEST)


def lengths(path: str) -> list[float]:
    """Return how long each picture is shown, in milliseconds."""
    return [part.milliseconds for part in _parts(path)[2]]


def pictures(path: str) -> Iterator[Image.Image]:
    """Yield the canvas after each picture; raises ValueError at what is broken."""
    header, shared, parts = _parts(path)
    canvas = Image.new("RGBA", struct.unpack(">II", header[:8]))
    for part in parts:
        x, y, width, height = part.area
        box = (x, y, x + width, y + height)
        size = struct.pack(">II", width, height)
        before = canvas.crop(box)
        laid = _decoded(chunk_of(b"IHDR", size + header[8:]) + shared, part.data)
        canvas.paste(Image.alpha_composite(before, laid) if part.over else laid, box)
        yield canvas
        if part.dispose == CLEARED:
            canvas.paste((0, 0, 0, 0), box)
        elif part.dispose == BEFORE:
            canvas.paste(before, box)


def _parts(path: str) -> tuple[bytes, bytes, list[_Part]]:
    """Return the header, the palette and transparency for all, and the pictures."""
    header, shared = bytes(13), b""
    parts: list[_Part] = []
    animated = False
    with open(path, "rb") as file:
        for kind, length in chunks_in(file):
            if kind == b"IHDR" and length == 13:
                header = file.read(13)
            elif kind in {b"PLTE", b"tRNS"}:
                shared += chunk_of(kind, file.read(length))
            elif kind == b"acTL":
                animated = True
            elif kind == b"fcTL" and animated and length == 26:
                control = file.read(26)
                _, width, height, x, y, up, down, dispose, blend = struct.unpack(
                    ">IIIIIHHBB", control
                )
                if not parts and dispose == BEFORE:
                    dispose = CLEARED
                canvas = struct.unpack(">II", header[:8])
                if x + width > canvas[0] or y + height > canvas[1]:
                    break
                time = 1000 * up / (down or 100)
                parts.append(_Part((x, y, width, height), time, dispose, blend == 1))
            elif kind == b"IDAT" and parts:
                parts[-1].data.append(file.read(length))
            elif kind == b"fdAT" and parts:
                parts[-1].data.append(file.read(length)[4:])
    return header, shared, [part for part in parts if part.data]


def _decoded(head: bytes, data: list[bytes]) -> Image.Image:
    """Return one picture in RGBA."""
    body = b"".join(chunk_of(b"IDAT", piece) for piece in data)
    still = with_palette(io.BytesIO(SIGNATURE + head + body + chunk_of(b"IEND", b"")))
    still.seek(0)
    decoder = av.CodecContext.create("png", "r")
    assert isinstance(decoder, VideoCodecContext)
    try:
        frames = decoder.decode(av.Packet(still.read()))
    except av.FFmpegError as error:
        raise ValueError("broken") from error
    if not frames:
        raise ValueError("no frame")
    return Image.fromarray(frames[0].to_ndarray(format="rgba"))
