"""A list of files on stdin, one a line; other content is refused by name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from malmm_cli.errors import UsageError

__all__ = ["listed"]

LONGEST = 2**16  # characters of a line; no system takes so long a name

_MARKS = ("\udcff\udcfe", "\udcfe\udcff", "\xff\xfe", "\xfe\xff")  # of UTF-16, read as another
_CONTROL = re.compile(r"[\0-\x08\x0b-\x1f\x7f]")


def listed(lines: Iterable[str]) -> list[str]:
    """The names of a list; some editors put a mark of the encoding before the first.

    Raises UsageError for a list in UTF-16, for one whose names are separated by something else
    than line feeds, and for input that is not text.
    """
    names: list[str] = []
    for line in _bounded(lines):
        name = line.rstrip("\r\n")
        if not names:
            _check_encoding(name)
            name = name.removeprefix("\ufeff")
        if _CONTROL.search(name) and not os.path.lexists(name):
            _check_separated(name, first=not names)
        if name.strip():
            names.append(name)
    return names


def _bounded(lines: Iterable[str]) -> Iterator[str]:
    """Lines, of which none is read further than a name can reach."""
    read = getattr(lines, "readline", None)
    for line in iter(lambda: read(LONGEST), "") if read else lines:
        if len(line) >= LONGEST and not _CONTROL.search(line):
            raise UsageError(
                f"the list on stdin has a line of more than {LONGEST} characters",
                hint="give a list of file names, one per line",
            )
        yield line


def _check_encoding(first: str) -> None:
    if first.startswith(_MARKS) or _is_wide(first):
        raise UsageError(
            "the list on stdin is in UTF-16, not UTF-8",
            hint="convert it: iconv -f UTF-16 -t UTF-8 LIST | malmm batch -",
        )


def _is_wide(text: str) -> bool:
    """Whether every other byte, or three of four, are zero, as in Latin text in UTF-16 or -32."""
    return any(
        len(text) > 3 and set(text[start:40:2]) == {"\0"} != set(text[1 - start : 40 : 2])
        for start in (0, 1)
    )


def _check_separated(name: str, *, first: bool) -> None:
    """Raise UsageError where this, which holds control characters, cannot be the name of a file."""
    rest = name.replace("\0", "")
    if "\0" in name and rest and not _CONTROL.search(rest):
        raise UsageError(
            "the names on stdin are separated by NUL, not by line feeds",
            hint="leave out -print0 or -0, or convert the list: tr '\\0' '\\n'",
        )
    if not _CONTROL.search(name.replace("\r", "")):
        raise UsageError(
            "the names on stdin are separated by carriage returns, not by line feeds",
            hint="convert the list: tr '\\r' '\\n'",
        )
    if first or "\0" in name:
        raise UsageError(
            "stdin is not a list of files",
            hint="give a list of file names, one per line, in UTF-8",
        )
