"""The events of a command on a terminal: lines and bars on stderr, streamed words on stdout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from malmm_cli.cli.console import complain, download_progress, emit, note, progress, warn
from malmm_cli.cli.options import RunOptions
from malmm_cli.errors import MalmmError
from malmm_cli.events import Events
from malmm_cli.formats import Failure, Item
from malmm_cli.types import Result
from malmm_cli.words import counted

__all__ = ["Terminal"]


class Terminal(Events):
    """Shows events; of nested stages only the outermost gets a bar.

    `quiet` leaves results and errors, `bars` allows bars, `verbose` adds times, `streams` prints
    words as they come. A bar is called by `label` or, without one, by the name of its stage.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        bars: bool = True,
        verbose: bool = False,
        streams: bool = False,
        label: str | None = None,
    ) -> None:
        self._quiet, self._bars, self._verbose = quiet, bars and not quiet, verbose
        self._streams, self._label = streams, label
        self._unit: str | None = None  # of the stage that has the bar
        self._update: Callable[[str, int, int], None] | None = None
        self._bar = ExitStack()

    @classmethod
    def of(cls, options: RunOptions, **about: Any) -> Terminal:
        """What the shared options ask for; `about` is streams and label."""
        shown = not options.no_progress
        return cls(quiet=options.quiet, bars=shown, verbose=options.verbose, **about)

    @property
    def streams(self) -> bool:
        """Whether words are printed as they come."""
        return self._streams

    def note(self, line: str) -> None:
        """Print a line, unless quiet."""
        if not self._quiet:
            note(line)

    def warn(self, line: str) -> None:
        """Print a warning, unless quiet."""
        if not self._quiet:
            warn(line)

    @contextmanager
    def stage(self, name: str, unit: str) -> Iterator[None]:
        """Show a bar until the stage ends or words come."""
        if self._unit is not None:
            yield
            return
        label = name if self._label is None else self._label
        with self._bar:
            self._update = self._bar.enter_context(
                download_progress(shown=self._bars)
                if unit == "bytes"
                else progress(label, shown=self._bars, unit=unit)
            )
            self._unit = unit
            try:
                yield
            finally:
                self._unit = self._update = None

    def progress(self, name: str, done: int, total: int, unit: str) -> None:
        """Move the bar."""
        if self._update and unit == self._unit:
            self._update(name, done, total)

    def text(self, piece: str) -> None:
        """Print words on stdout, without the bar, which would be in the way."""
        self._update = None
        self._bar.close()
        emit(piece)

    def finished(self, result: Result) -> None:
        """Print what a result does not show: its warnings and, if verbose, times."""
        for warning in result.warnings:
            self.warn(f"{result.video}: {warning}")
        self.timing(result.video, result.frames, result.duration, result.seconds)

    def failed(self, error: MalmmError) -> None:
        """Print the error."""
        complain(error.message, error.hint)

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
