"""Lines of a stream in UTF-8, or in UTF-16 if it begins with a byte order mark."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import Any

from malmm_cli.errors import UsageError

__all__ = ["LONGEST", "check_encoding", "pieces"]

LONGEST = 2**16  # characters of a line, beyond which the rest is not read

_MARKS = ("\udcff\udcfe", "\udcfe\udcff", "\xff\xfe", "\xfe\xff")  # of UTF-16, read as another
_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_PIECE = 2**16  # bytes read at a time


def pieces(lines: Iterable[str], separator: str) -> Iterator[str]:
    """What a stream of text, or the bytes below it, hold between separators.

    A byte order mark at the beginning is left out. Raises UsageError for UTF-16 that is not valid;
    bytes that are not UTF-8 become surrogates. Lines of text keep their line feeds.
    """
    source = getattr(lines, "buffer", None)
    found = _split(lines, separator) if source is None else _decoded(source, separator)
    yield next(found, "").removeprefix("\ufeff")
    yield from found


def _split(lines: Iterable[str], separator: str) -> Iterator[str]:
    if separator != "\n":
        return iter("".join(lines).split(separator))
    read = getattr(lines, "readline", None)
    return iter(lambda: read(LONGEST), "") if read else iter(lines)


def _decoded(source: Any, separator: str) -> Iterator[str]:
    """The pieces of a stream of bytes."""
    beginning = source.read(4)
    is_wide = beginning.startswith(_BOMS) and not beginning.startswith(codecs.BOM_UTF32_LE)
    encoding, errors = ("utf-16", "strict") if is_wide else ("utf-8", "surrogateescape")
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    rest, piece = "", beginning
    while True:
        try:
            rest += decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            raise UsageError("stdin is not valid UTF-16", hint="convert it to UTF-8") from error
        *whole, rest = rest.split(separator)
        yield from whole
        if len(rest) >= LONGEST or not piece:
            break
        piece = source.read1(_PIECE)
    yield rest


def check_encoding(first: str) -> None:
    """Raise UsageError for a first line in UTF-16 without a byte order mark, or in UTF-32."""
    if first.startswith(_MARKS) or _is_wide(first):
        order = "BE" if first.startswith("\0") else "LE"
        raise UsageError(
            "stdin is in UTF-16 without a byte order mark, or in UTF-32",
            hint=f"add a byte order mark, or convert it: iconv -f UTF-16{order} -t UTF-8",
        )


def _is_wide(text: str) -> bool:
    """Whether every other byte, or three of four, are zero, as in Latin text in UTF-16 or -32."""
    return any(
        len(text) > 3 and set(text[start:40:2]) == {"\0"} != set(text[1 - start : 40 : 2])
        for start in (0, 1)
    )
