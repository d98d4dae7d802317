"""The standard streams: always open, tolerant of non-blocking mode, safe for terminals."""

from __future__ import annotations

import io
import select
import sys
from typing import Any, TextIO

from malmm_cli.errors import OutputError
from malmm_cli.files.escapes import for_terminal
from malmm_cli.processes import pulse
from malmm_cli.processes.standard_streams import fill_streams

__all__ = ["drawing", "open_streams", "spinning"]


def open_streams() -> None:
    """Put these streams in the place of Python's, which lacks those that are closed.

    Results are UTF-8 wherever they go; names of files that are no text get through.
    """
    fill_streams()
    stdin = io.BufferedReader(_Raw(sys.stdin, 0))
    sys.stdin = io.TextIOWrapper(stdin, sys.getfilesystemencoding(), "surrogateescape")
    stdout = io.BufferedWriter(_Results(sys.stdout, 1))
    sys.stdout = _Text(stdout, "utf-8", "backslashreplace", line_buffering=True)
    sys.stderr = _errors(_Text, _Messages)


def drawing() -> TextIO:
    """Standard error for what draws on a terminal, which has to obey that."""
    return _errors(io.TextIOWrapper, _Messages)


def spinning() -> TextIO:
    """As `drawing`, for a line with a spinner in front that is drawn again and again."""
    return _errors(io.TextIOWrapper, _Spinner)


def _errors(kind: type[io.TextIOWrapper], below: type[_Messages]) -> io.TextIOWrapper:
    encoding = sys.stderr.encoding if sys.stderr else "utf-8"
    stderr = io.BufferedWriter(below(sys.__stderr__, 2))
    return kind(stderr, encoding, "backslashreplace", line_buffering=True)


class _Text(io.TextIOWrapper):
    """Text of which a terminal obeys nothing; pipes and files get it as it is."""

    def write(self, text: str) -> int:
        """Write it."""
        return super().write(for_terminal(text) if self.isatty() else text)


class _Raw(io.RawIOBase):
    """What is below one of Python's streams or, where it has none, the descriptor.

    Whoever shares it may have set it not to block; here it waits all the same.
    """

    def __init__(self, stream: TextIO | None, number: int) -> None:
        buffer = getattr(stream, "buffer", None)
        mode = "wb" if number else "rb"
        self._raw = getattr(buffer, "raw", buffer) or io.FileIO(number, mode, closefd=False)

    def fileno(self) -> int:
        """The descriptor."""
        return int(self._raw.fileno())

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return bool(self._raw.isatty())

    def readable(self) -> bool:
        """Whether it is to be read."""
        return bool(self._raw.readable())

    def writable(self) -> bool:
        """Whether it is to be written."""
        return bool(self._raw.writable())

    def readinto(self, buffer: Any) -> int:
        """Read something, as soon as there is something."""
        while (done := self._raw.readinto(buffer)) is None:
            select.select([self], [], [])
        return int(done)

    def write(self, data: Any) -> int:
        """Write something, as soon as there is room."""
        pulse.rest()
        while (done := self._raw.write(data)) is None:
            select.select([], [self], [])
        return int(done)


class _Results(_Raw):
    """Standard output. A reader that went away is a BrokenPipeError, else it is an OutputError."""

    def write(self, data: Any) -> int:
        """Write something, or say why not."""
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"cannot write the result: {error.strerror}") from error


class _Messages(_Raw):
    """Standard error, whose own write errors are ignored."""

    def write(self, data: Any) -> int:
        """Write something, if that can be."""
        try:
            return super().write(data)
        except OSError:
            return len(data)


class _Spinner(_Messages):
    """Standard error for a line whose spinner moves on even if nothing is written any more."""

    def write(self, data: Any) -> int:
        """Write the line, and leave the spinner to itself."""
        done = super().write(data)
        pulse.wake()
        return done
