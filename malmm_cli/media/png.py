"""PNG: text and profiles in it are packed, and a decoder unpacks them whole."""

from __future__ import annotations

import struct
import zlib

from malmm_cli.errors import MediaError
from malmm_cli.media.files import shown

__all__ = ["check_text"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST = 2**26  # bytes when unpacked; Pillow's limit
STEP = 2**20


def check_text(path: str) -> None:
    """Raise MediaError if this is a PNG whose text or colour profile unpack to too much."""
    left = MOST
    with open(path, "rb") as file:
        if file.read(8) != SIGNATURE:
            return
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind in (b"zTXt", b"iTXt", b"iCCP"):
                chunk = file.read(min(length, MOST))
                left -= _unpacked(_packed(kind, chunk), left)
                if left <= 0:
                    message = f"{shown(path)}: its text is beyond the limit of {MOST >> 20} MiB"
                    raise MediaError(message, kind="TooLarge")
                length -= len(chunk)
            file.seek(length + 4, 1)


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
