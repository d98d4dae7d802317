"""PNG: oversized compressed text, and a kind of transparency that decoders get wrong."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from malmm_cli.errors import MediaError
from malmm_cli.media.files import shown

__all__ = [
    *("GREY", "SIGNATURE", "check_text", "chunk_of", "chunks_in", "hides_grey", "with_palette"),
]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST = 2**26  # bytes when unpacked; Pillow's limit
STEP = 2**20
GREY, PALETTE = 0, 3  # kinds of colour


def check_text(path: str) -> None:
    """Raise MediaError if this is a PNG whose text or colour profile unpack to too much."""
    left = MOST
    with open(path, "rb") as file:
        for kind, length in chunks_in(file):
            if kind in (b"zTXt", b"iTXt", b"iCCP"):
                left -= _unpacked(_packed(kind, file.read(min(length, MOST))), left)
                if left <= 0:
                    message = f"{shown(path)}: its text chunks exceed the limit of {MOST >> 20} MiB"
                    raise MediaError(message, kind="TooLarge")


def hides_grey(path: str) -> bool:
    """Say whether this is grey of 1, 2 or 4 bits with a value that is not to be shown."""
    with open(path, "rb") as file:
        return _hidden_grey(file) is not None


def with_palette(file: BinaryIO) -> BinaryIO:
    """Return the same picture with a palette, if it is such grey, else the file as it is.

    FFmpeg shows what is hidden in such grey, and Pillow some of it; palettes they get right.
    """
    if (found := _hidden_grey(file)) is None:
        return file
    depth, hidden, at = found
    count = 2**depth
    file.seek(0)
    before = bytearray(file.read(at))
    before[25] = PALETTE
    before[12:33] = chunk_of(b"IHDR", bytes(before[16:29]))[4:]
    greys = bytes(value * 255 // (count - 1) for value in range(count) for _ in "RGB")
    alpha = bytes(255 * (value != hidden) for value in range(count))
    file.seek(at + 14)
    chunks = chunk_of(b"PLTE", greys) + chunk_of(b"tRNS", alpha)
    return io.BytesIO(bytes(before) + chunks + file.read())


def _hidden_grey(file: BinaryIO) -> tuple[int, int, int] | None:
    """Return the bits of grey, the value that is hidden, and where that is said; else None."""
    depth = 0
    for kind, length in chunks_in(file):
        if kind == b"IHDR" and length == 13:
            *_, bits, colour = struct.unpack(">IIBB", file.read(10))
            depth = bits if colour == GREY and bits < 8 else 0
        if not depth or kind == b"IDAT":
            return None
        if kind == b"tRNS" and length == 2:
            (hidden,) = struct.unpack(">H", file.read(2))
            return depth, hidden % 2**depth, file.tell() - 10
    return None


def chunks_in(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield each chunk's kind and available length, with the file positioned at its data."""
    size = file.seek(0, 2)
    file.seek(0)
    if file.read(8) != SIGNATURE:
        return
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        begin = file.tell()
        yield kind, max(0, min(length, size - begin))
        file.seek(begin + length + 4)


def chunk_of(kind: bytes, data: bytes) -> bytes:
    """Return a chunk as it is written to a file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _packed(kind: bytes, chunk: bytes) -> bytes:
    """Return what is packed: behind a name, and in iTXt behind more that ends in zeros."""
    _, _, rest = chunk.partition(b"\0")
    if kind != b"iTXt":
        return rest[1:]
    return rest[2:].split(b"\0", 2)[-1] if rest[:1] == b"\1" else b""


def _unpacked(data: bytes, most: int) -> int:
    """Return how long `data` are when unpacked, or a little more than `most`."""
    unpacker, length = zlib.decompressobj(), 0
    try:
        while data and length <= most:
            length += len(unpacker.decompress(data, STEP))
            data = unpacker.unconsumed_tail
    except zlib.error:  # decoders stop there too
        pass
    return length
