"""What a long call reports while it runs: one object instead of a callback for each occasion."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from malmm_cli.errors import MalmmError
from malmm_cli.types import Result

__all__ = ["SILENT", "Events", "Forwarding", "Warnings"]


class Events:
    """Receives what a call reports. Every method does nothing; override those you want.

    Methods are called from the thread that made the call. What they raise ends the call, as
    Ctrl-C does: what was finished before is kept.
    """

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @property
    def streams(self) -> bool:
        """Whether `text` is wanted: by default, whether a subclass overrides it."""
        return type(self).text is not Events.text

    def note(self, line: str) -> None:
        """Something that is good to know, in one line."""

    def warn(self, line: str) -> None:
        """Something is wrong, but the call goes on."""

    def stage(self, name: str, unit: str) -> AbstractContextManager[object]:
        """Enclose a stage of the work, which counts in `unit`; stages may be nested."""
        return nullcontext()

    def progress(self, name: str, done: int, total: int, unit: str) -> None:
        """So much is done of a stage or, with the unit "bytes", of one file of a download.

        Each file of a download is reported once before the first of them grows.
        """

    def text(self, piece: str) -> None:
        """The next words of a text that is being generated: for one prompt, with one beam."""

    def started(self, video: str) -> None:
        """An item of several, about this video, is being worked on."""

    def finished(self, result: Result) -> None:
        """An item of several has its result."""

    def failed(self, error: MalmmError) -> None:
        """An item of several has no result; the others go on."""

    def interrupted(self, line: str) -> None:
        """Ctrl-C ends the call; the line says where what was done is kept."""

    def timing(
        self, video: str, frames: int, duration: float, seconds: Mapping[str, float]
    ) -> None:
        """How many `seconds` each stage took for frames of a video of `duration` seconds."""


def _forwarded(name: str) -> Any:
    return lambda self, *given, **named: getattr(self.to, name)(*given, **named)


class Forwarding(Events):
    """Passes everything on to other events, `to`; override what is to differ."""

    def __init__(self, to: Events) -> None:
        self.to = to

    streams = property(lambda self: self.to.streams)
    note, warn, interrupted = map(_forwarded, ("note", "warn", "interrupted"))
    stage, progress, text = map(_forwarded, ("stage", "progress", "text"))
    started, finished, failed = map(_forwarded, ("started", "finished", "failed"))
    timing = _forwarded("timing")


class Warnings(Events):
    """Appends warnings to `lines`, to be part of a result, and drops the rest."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def warn(self, line: str) -> None:
        """Append it."""
        self.lines.append(line)


SILENT = Events()
