"""The events of a command on a terminal: lines and bars on stderr, streamed words on stdout."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from malmm_cli.cli.bar import Bar, bar
from malmm_cli.cli.console import complain, emit, note, warn
from malmm_cli.cli.options import RunOptions
from malmm_cli.cli.wrapping import Wrapped, width
from malmm_cli.errors import MalmmError
from malmm_cli.events import Events
from malmm_cli.formats import Failure, Item
from malmm_cli.text.words import counted
from malmm_cli.types import Result

__all__ = ["Terminal"]


@dataclass
class _Stage:
    """A stage of the work, and how much of it is done: nothing is counted where `total` is 0."""

    name: str
    unit: str
    done: int = 0
    total: int = 0


class Terminal(Events):
    """Shows events; all stages share one bar, which names the innermost.

    `quiet` leaves results, warnings and errors, `bars` allows bars, `verbose` adds times, `streams`
    prints words as they come. Of the errors of items, at most so many are `printed`.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        bars: bool = True,
        verbose: bool = False,
        streams: bool = False,
        printed: float = math.inf,
    ) -> None:
        self._quiet, self._bars, self._verbose = quiet, bars and not quiet, verbose
        self._streams, self._printed = streams, printed
        self._stages: list[_Stage] = []  # the innermost last
        self._sizes: dict[str, tuple[int, int]] = {}  # of files that are downloaded
        self._failures = 0
        self._warned: set[str] = set()  # by results
        self._item = ""  # of several, the one at hand
        self._bar: Bar | None = None
        self._open = ExitStack()
        self._text: Wrapped | None = None  # what is streamed

    @classmethod
    def of(cls, options: RunOptions, **more: Any) -> Terminal:
        """What the shared options ask for; `more` is `streams` or `printed`."""
        shown = not options.no_progress
        return cls(quiet=options.quiet, bars=shown, verbose=options.verbose, **more)

    @property
    def streams(self) -> bool:
        """Whether words are printed as they come."""
        return self._streams

    def note(self, line: str) -> None:
        """Print a line, unless quiet."""
        if not self._quiet:
            note(line)

    def warn(self, line: str) -> None:
        """Print a warning, quiet or not: a result may be worth less than it seems."""
        warn(line)

    @contextmanager
    def stage(self, name: str, unit: str) -> Iterator[None]:
        """Show a stage in the bar; the bar ends with the outermost, or when words come."""
        self._stages.append(_Stage(name, unit))
        with ExitStack() as stack:
            if len(self._stages) == 1:
                self._open = stack
                self._bar = stack.enter_context(bar(shown=self._bars))
            self._show()
            try:
                yield
            finally:
                self._stages.pop()
                if self._stages:
                    self._show()
                else:
                    self._bar = None

    def _show(self) -> None:
        """Name the stages in the bar, and how much of the innermost was done before."""
        self._sizes = {}
        if self._bar:
            self._bar.show(self._title())
            stage = self._stages[-1]
            if stage.total:
                self._bar.count(stage.done, stage.total, stage.unit)

    def _title(self) -> str:
        names = [os.path.basename(stage.name) or stage.name for stage in self._stages]
        if self._item:
            names = [self._item]
        failed = f"{self._failures} failed; " if self._failures else ""
        return f"{failed}{': '.join(names)}"

    def progress(self, name: str, done: int, total: int, unit: str) -> None:
        """Move the bar, if it counts in this unit; a download's counts all of its files."""
        if self._bar is None or not self._stages or unit != self._stages[-1].unit:
            return
        if unit == "bytes":
            self._sizes[name] = (done, total)
            done, total = map(sum, zip(*self._sizes.values(), strict=True))
        self._stages[-1].done, self._stages[-1].total = done, total
        self._bar.count(done, total, unit)

    def text(self, piece: str) -> None:
        """Print words on stdout, without the bar, which would be in the way."""
        self._bar = None
        self._open.close()
        self._text = self._text or Wrapped(width())
        emit(self._text.feed(piece))

    def finished(self, result: Result) -> None:
        """Print what a result does not show: its warnings and, if verbose, times."""
        for line in (f"{result.video}: {warning}" for warning in result.warnings):
            if line not in self._warned:  # one for all questions about a video
                self._warned.add(line)
                self.warn(line)
        self.timing(result.video, result.frames, result.duration, result.seconds)

    def started(self, video: str) -> None:
        """Name the item at hand in the bar."""
        self._item = os.path.basename(video) or video
        self._describe()

    def _describe(self) -> None:
        if self._bar:
            self._bar.describe(self._title())

    def failed(self, error: MalmmError) -> None:
        """Print the error, unless there were many, and count it in the bar."""
        self._failures += 1
        self._describe()
        if self._failures <= self._printed:
            complain(error.message, error.hint)
        elif self._failures == self._printed + 1:
            note("more failures are not shown here")

    def timing(
        self, video: str, frames: int, duration: float, seconds: Mapping[str, float]
    ) -> None:
        """Print how long each stage took, if verbose."""
        if self._verbose:
            stages = ", ".join(f"{stage} {spent:.2f} s" for stage, spent in seconds.items())
            note(f"{video}: {counted(frames, 'frame')} of {duration:.1f} s; {stages}")

    def interrupted(self, line: str) -> None:
        """Print the line."""
        note(line)

    def report(self, item: Item) -> None:
        """Report an item that has a result, or failed."""
        if isinstance(item, Failure):
            self.failed(item.error)
        else:
            self.finished(item)
