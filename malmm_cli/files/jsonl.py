"""Files of JSON lines: what was written before, and whole lines that are appended and durable.

A kill, a full disk or a power cut leaves half a line at the end at most. Whoever goes on with a
file reads it by `lines_in`, removes what is of no use by `without`, and appends by `open_lines`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from malmm_cli.errors import OutputError
from malmm_cli.files.atomic import RERUN, ROOM, check_same, new_file, writing
from malmm_cli.files.special import check_own

__all__ = ["StoredLine", "encoded", "lines_in", "open_lines", "without"]

PIECE = 2**20  # bytes copied at a time


class StoredLine(NamedTuple):
    """A line of a file, from byte `start` to `stop`, with its line break if it has one."""

    start: int
    stop: int
    raw: bytes

    @property
    def is_whole(self) -> bool:
        """Whether its end was written too."""
        return self.raw.endswith(b"\n")


def lines_in(path: Path) -> Iterator[StoredLine]:
    """Yield the lines of a file; none where there is no file, or a folder."""
    stop = 0
    with suppress(FileNotFoundError, IsADirectoryError), path.open("rb") as file:
        for raw in file:
            start, stop = stop, stop + len(raw)
            yield StoredLine(start, stop, raw)


def without(path: Path, ranges: Iterable[tuple[int, int]], hint: str = ROOM) -> None:
    """Replace a file by one without some ranges of bytes, whole or not at all, durably.

    A link becomes a file, and a file that is not there an empty one. Raises OutputError with the
    hint.
    """
    size = path.stat().st_size if path.is_file() else 0
    cuts = [*sorted(ranges), (size, 0)]
    with new_file(path, durable=True, hint=hint) as new:
        if not size:
            return
        with path.open("rb") as file:
            begin = 0
            for start, stop in cuts:
                file.seek(begin)
                for offset in range(begin, start, PIECE):
                    new.write(file.read(min(PIECE, start - offset)))
                begin = stop


@contextmanager
def open_lines(
    path: Path, *, overwrite: bool = False, append: bool = False
) -> Iterator[Callable[[str], None]]:
    """Writes whole lines as they come, from the first on; those in the file are always complete.

    A file created in the meantime, for example by another run, is not overwritten unless asked for;
    `append` keeps its content. Raises OutputError, at the end at the latest, where the file was
    removed, replaced or changed by another process meanwhile.
    """
    file: IO[bytes] | None = None
    complete = 0

    def check() -> None:
        if file is not None:
            check_same(path, found := os.fstat(file.fileno()))
            if found.st_size != complete:
                raise OutputError(
                    f"{path}: was changed by another program while being written", hint=RERUN
                )

    def write(line: str) -> None:
        nonlocal file, complete
        with writing(path):
            if file is None:
                check_own(path)
                file = path.open("ab" if append else "wb" if overwrite else "xb", buffering=0)
                complete = file.tell()
            check()
            rest = encoded(line)
            try:
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
                complete = file.tell()
            except OSError:
                file.truncate(complete)
                raise

    try:
        yield write
        check()
    finally:
        if file is not None:
            file.close()


def encoded(text: str) -> bytes:
    """UTF-8; bytes in file names that are not valid text are escaped as in JSON."""
    return text.encode("utf-8", "backslashreplace")
