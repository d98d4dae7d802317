"""Events that keep what they were given."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

from malmm_cli.events import Events


class Recorded(Events):
    """Everything by its kind, in the order in which it came."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.stages: list[str] = []
        self.counts: list[tuple[int, int]] = []  # done and total of each progress
        self.pieces: list[str] = []
        self.results: list[Any] = []
        self.errors: list[Any] = []
        self.timings: list[Any] = []
        self.interruptions: list[str] = []
        self.order: list[str] = []  # stages begun and ended, videos started, results and errors

    def note(self, line):
        self.notes.append(line)

    def warn(self, line):
        self.warnings.append(line)

    @contextmanager
    def stage(self, name, unit):
        self.stages.append(f"{name}, {unit}")
        self.order.append(name)
        yield
        self.order.append(f"end of {name}")

    def progress(self, name, done, total, unit):
        self.counts.append((done, total))

    def text(self, piece):
        self.pieces.append(piece)

    def started(self, video):
        self.order.append(f"started {video}")

    def finished(self, result):
        self.order.append(f"done {result.video}")
        self.results.append(result)

    def failed(self, error):
        self.order.append(error.message)
        self.errors.append(error)

    def timing(self, video, frames, duration, seconds):
        self.timings.append((video, frames, duration, seconds))

    def interrupted(self, line):
        self.interruptions.append(line)
