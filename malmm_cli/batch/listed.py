"""A list of files on stdin, one per line or ending in NUL; other content is refused by name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

from malmm_cli.errors import UsageError
from malmm_cli.text.encodings import LONGEST, check_encoding, pieces

__all__ = ["listed"]


_CONTROL = re.compile(r"[\0-\x08\x0b-\x1f\x7f]")


def listed(lines: Iterable[str], *, null: bool = False) -> list[str]:
    """The names of a list, which may begin with a mark of its encoding: UTF-8 or UTF-16.

    With `null`, names end in NUL instead of a line feed and are taken as they are. Raises
    UsageError for a list in UTF-16 without a mark, for one whose names are separated otherwise, and
    for input that is not text.
    """
    if null:
        return _without_empty(list(pieces(lines, "\0")))
    names: list[str] = []
    for line in _bounded(pieces(lines, "\n")):
        name = line.rstrip("\r\n")
        if not names:
            check_encoding(name)
        if _CONTROL.search(name) and not os.path.lexists(name):
            _check_separated(name, first=not names)
        if name[:1] in ("'", '"') and not os.path.lexists(name):
            _check_unquoted(name)
        if name.strip():
            names.append(name)
    return names


def _without_empty(names: list[str]) -> list[str]:
    """Names that end in NUL; UsageError where there is none, but line feeds."""
    if len(names) == 1 and "\n" in names[0] and not os.path.lexists(names[0]):
        raise UsageError(
            "the names on stdin are separated by line feeds, not by NUL", hint="leave out -0"
        )
    return [name for name in names if name]


def _check_unquoted(name: str) -> None:
    """Raise UsageError for a name in quotation marks, without which the file exists."""
    mark, bare = name[0], name.strip()[1:-1]
    if name.strip().endswith(mark) and os.path.lexists(bare):
        raise UsageError(
            f"the names on stdin are in quotation marks: {name.strip()}",
            hint=f"give them as they are: {bare}",
            kind="Missing",
        )


def _bounded(lines: Iterable[str]) -> Iterator[str]:
    """Lines, of which none is read further than a name can reach."""
    for line in lines:
        if len(line) >= LONGEST and not _CONTROL.search(line):
            raise UsageError(
                f"the list on stdin has a line of more than {LONGEST} characters",
                hint="give a list of file names, one per line",
            )
        yield line


def _check_separated(name: str, *, first: bool) -> None:
    """Raise UsageError where this, which holds control characters, cannot be the name of a file."""
    rest = name.replace("\0", "")
    if "\0" in name and rest and not _CONTROL.search(rest):
        raise UsageError(
            "the names on stdin are separated by NUL, not by line feeds",
            hint="add -0, as for the output of find -print0",
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
