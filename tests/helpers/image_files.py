"""Images and animations put together byte by byte, and containers changed in place."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image


class Part(NamedTuple):
    """One picture of an animation: RGBA pixels (H, W, 4), laid down at x, y of the canvas.

    Afterwards its region is left (0), cleared (1) or as before (2). `blend` lays it over what is
    there.
    """

    x: int
    y: int
    pixels: np.ndarray
    milliseconds: int = 100
    dispose: int = 0
    blend: bool = True


def on_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:] / 255
    return np.rint(alpha * rgba[..., :3] + (1 - alpha) * 255).astype(int)


def composed(parts: Sequence[Part], size: tuple[int, int]) -> list[np.ndarray]:
    """What an animation shows: RGBA canvases (H, W, 4), transparent where nothing was drawn."""
    canvas, shown = np.zeros((size[1], size[0], 4)), []
    for x, y, pixels, _, dispose, blend in parts:
        before = canvas.copy()
        region = canvas[y : y + pixels.shape[0], x : x + pixels.shape[1]]
        region[:] = _over(region, pixels) if blend else pixels
        shown.append(canvas.copy())
        if dispose == 1:
            region[:] = 0
        elif dispose == 2:
            canvas = before
    return shown


def _over(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    top, bottom = above[..., 3:] / 255, below[..., 3:] / 255
    alpha = top + bottom * (1 - top)
    colour = above[..., :3] * top + below[..., :3] * bottom * (1 - top)
    return np.concatenate([colour / np.where(alpha > 0, alpha, 1), alpha * 255], -1)


# --- GIF, PNG, WebP


def write_gif(
    path: Path, frames: Sequence[tuple[int, int, np.ndarray, int]], size: tuple[int, int]
) -> Path:
    """Write frames (x, y, indices of colours (H, W), delay in 1/100 s); colour 1 is transparent."""
    palette = bytes(value for grey in range(256) for value in (grey, grey, grey))
    data = b"GIF89a" + struct.pack("<HHBBB", *size, 0xF7, 0, 0) + palette
    for x, y, indices, delay in frames:
        data += b"\x21\xf9\x04" + struct.pack("<BHB", 1, delay, 1) + b"\0"
        data += b"\x2c" + struct.pack("<HHHHB", x, y, *indices.shape[::-1], 0) + b"\x08"
        data += _plain_codes(indices.ravel().tolist()) + b"\0"
    path.write_bytes(data + b";")
    return path


def _plain_codes(values: Sequence[int]) -> bytes:
    """Codes of nine bits that use no dictionary: it is cleared before it grows."""
    number = count = 0
    for index, value in enumerate(values):
        for code in (256, value) if index % 250 == 0 else (value,):
            number |= code << 9 * count
            count += 1
    number |= 257 << 9 * count
    data = number.to_bytes((9 * (count + 1) + 7) // 8, "little")
    blocks = [data[first : first + 255] for first in range(0, len(data), 255)]
    return b"".join(bytes([len(block)]) + block for block in blocks)


def png_chunk(kind: bytes, data: bytes = b"") -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def write_png(path: Path, size: tuple[int, int], *chunks: bytes) -> Path:
    """Write the header of an RGBA picture and then `chunks`."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 6, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IEND"))
    return path


def packed(pixels: np.ndarray) -> bytes:
    return zlib.compress(b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in pixels))


def write_odd_apng(
    path: Path, parts: Sequence[Part], size: tuple[int, int], bits: int, colour: int
) -> Path:
    """Write an animation in grey (0), RGB (2) or RGBA (6) of so many bits."""
    chunks = [png_chunk(b"acTL", struct.pack(">II", len(parts), 0))]
    for number, (x, y, pixels, milliseconds, dispose, blend) in enumerate(parts):
        values = pixels[..., : {0: 1, 2: 3, 6: 4}[colour]].astype(int) * (2**bits - 1) // 255
        digits = (values[..., None] >> np.arange(bits)[::-1] & 1).reshape(len(pixels), -1)
        data = packed(np.packbits(digits, axis=1))
        control = (pixels.shape[1], pixels.shape[0], x, y, milliseconds, 1000, dispose, blend)
        chunks.append(png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 2 * number, *control)))
        sequence = struct.pack(">I", 2 * number + 1) if number else b""
        chunks.append(png_chunk(b"fdAT" if number else b"IDAT", sequence + data))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0))
    body = b"".join((header, *chunks, png_chunk(b"IEND")))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def write_apng(
    path: Path, parts: Sequence[Part], size: tuple[int, int], default: np.ndarray | None = None
) -> Path:
    """Write an animation; `default` is shown by those who know no animations, and no part of it."""
    chunks = [png_chunk(b"acTL", struct.pack(">II", len(parts), 0))]
    if default is not None:
        chunks.append(png_chunk(b"IDAT", packed(default)))
    for number, (x, y, pixels, milliseconds, dispose, blend) in enumerate(parts):
        control = (pixels.shape[1], pixels.shape[0], x, y, milliseconds, 1000, dispose, blend)
        chunks.append(png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 2 * number, *control)))
        if number == 0 and default is None:
            chunks.append(png_chunk(b"IDAT", packed(pixels)))
        else:
            data = struct.pack(">I", 2 * number + 1) + packed(pixels)
            chunks.append(png_chunk(b"fdAT", data))
    return write_png(path, size, *chunks)


def write_webp(
    path: Path, parts: Sequence[Part], size: tuple[int, int], *, alpha: bool = True
) -> Path:
    """Write an animation, whose header says whether it has transparency; x and y are even."""

    def three(*values: int) -> bytes:
        return b"".join(value.to_bytes(3, "little") for value in values)

    body = b"VP8X" + struct.pack("<II", 10, 2 | 16 * alpha) + three(size[0] - 1, size[1] - 1)
    body += b"ANIM" + struct.pack("<IIH", 6, 0xFF0000FF, 0)
    for x, y, pixels, milliseconds, dispose, blend in parts:
        still = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(still, "WEBP", lossless=True, exact=True)
        frame = three(x // 2, y // 2, pixels.shape[1] - 1, pixels.shape[0] - 1, milliseconds)
        frame += bytes([dispose | 2 * (not blend)]) + still.getvalue()[12:]
        body += b"ANMF" + struct.pack("<I", len(frame)) + frame
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body)
    return path


# --- AVIF


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def _full(kind: bytes, head: int, *parts: bytes) -> bytes:
    return _box(kind, struct.pack(">I", head), *parts)


def write_tiles(path: Path, colours: Sequence[str], side: int) -> Path:
    """Write a photograph of two by two tiles, as cameras do."""
    tiles, config = [], b""
    for colour in colours:
        still = io.BytesIO()
        Image.new("RGB", (side, side), colour).save(still, "AVIF")
        data = still.getvalue()
        config = _body(data, b"av1C", 8)
        tiles.append(_body(data, b"mdat", 0))
    whole = (2 * side, 2 * side)
    items = [*tiles, struct.pack(">BBBBHH", 0, 0, 1, 1, *whole)]
    kinds = [b"av01"] * 4 + [b"grid"]
    info = [
        _full(b"infe", 2 << 24, struct.pack(">HH", number, 0), kind, b"\0")
        for number, kind in enumerate(kinds, 1)
    ]
    sizes = [_full(b"ispe", 0, struct.pack(">II", *size)) for size in ((side, side), whole)]
    owned = [struct.pack(">HB", number, 2) + b"\x81\x02" for number in range(1, 5)]
    owned.append(struct.pack(">HB", 5, 1) + b"\x03")

    def meta(start: int) -> bytes:
        places = []
        for number, item in enumerate(items, 1):
            places.append(struct.pack(">HHHII", number, 0, 1, start, len(item)))
            start += len(item)
        return _full(
            *(b"meta", 0, _full(b"hdlr", 0, bytes(4), b"pict", bytes(13))),
            _full(b"pitm", 0, struct.pack(">H", 5)),
            _full(b"iloc", 0, b"\x44\0", struct.pack(">H", 5), *places),
            _full(b"iinf", 0, struct.pack(">H", 5), *info),
            _full(b"iref", 0, _box(b"dimg", struct.pack(">6H", 5, 4, 1, 2, 3, 4))),
            _box(
                *(b"iprp", _box(b"ipco", config, *sizes)),
                _full(b"ipma", 0, struct.pack(">I", 5), *owned),
            ),
        )

    begin = _box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf")
    start = len(begin) + len(meta(0)) + 8
    path.write_bytes(begin + meta(start) + _box(b"mdat", *items))
    return path


def _body(data: bytes, kind: bytes, back: int) -> bytes:
    """The box of this kind, from `back` bytes before its body."""
    start = data.index(kind)
    (length,) = struct.unpack_from(">I", data, start - 4)
    return data[start + 4 - back : start - 4 + length]


# --- containers


def set_clap(
    path: Path, size: tuple[int, int], shift: tuple[int, int] = (0, 0), kind: bytes = b"avc1"
) -> Path:
    """Give an MP4 file, whose index comes last, a clean aperture."""
    data = bytearray(path.read_bytes())
    entry = data.rindex(kind) - 4
    end = entry + struct.unpack_from(">I", data, entry)[0]
    ratios = [part for value in (*size, *shift) for part in (value, 1)]
    data[end:end] = _box(b"clap", struct.pack(">8i", *ratios))
    for name in (kind, b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        at = data.rindex(name, 0, entry + 8) - 4
        struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + 40)
    path.write_bytes(data)
    return path


SEGMENT, TRACKS, TRACK, VIDEO = b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae", b"\xe0"
VIDEO_PARTS = {
    "left": b"\x54\xcc",
    "top": b"\x54\xbb",
    "right": b"\x54\xdd",
    "bottom": b"\x54\xaa",
    "width": b"\x54\xb0",
    "height": b"\x54\xba",
    "unit": b"\x54\xb2",
}


def set_display(path: Path, **values: int) -> Path:
    """Replace what a Matroska file, written live, says of cropping and of the display."""

    def rebuilt(data: bytes, parents: tuple[bytes, ...]) -> bytes:
        out, at = b"", 0
        while at < len(data):
            middle = at + 9 - data[at].bit_length()
            begin = middle + 9 - data[middle].bit_length()
            number = int.from_bytes(data[middle:begin], "big")
            most = (1 << 7 * (begin - middle)) - 1
            open_end = number & most == most
            end = len(data) if open_end else begin + (number & most)
            name, body = data[at:middle], data[begin:end]
            if name in (SEGMENT, TRACKS, TRACK, VIDEO):
                body = rebuilt(body, (*parents, name))
                if name == VIDEO:
                    body += b"".join(
                        VIDEO_PARTS[key] + b"\x84" + struct.pack(">I", value)
                        for key, value in values.items()
                    )
                length = (
                    data[middle:begin] if open_end else (len(body) | 1 << 56).to_bytes(8, "big")
                )
                out += name + length + body
            elif VIDEO not in parents or name not in VIDEO_PARTS.values():
                out += data[at:end]
            at = end
        return out

    path.write_bytes(rebuilt(path.read_bytes(), ()))
    return path
