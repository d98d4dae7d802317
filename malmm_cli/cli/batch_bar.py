"""The bar of a batch: done, failed, the file at hand, rate and time left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from malmm_cli.cli.streams import drawing
from malmm_cli.cli.terminal import Terminal
from malmm_cli.errors import MalmmError
from malmm_cli.files.escapes import on_one_line

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["BatchTerminal"]

SHOWN = 24  # characters of the file's name


class BatchTerminal(Terminal):
    """A terminal whose bar of the stage "batch" also names the file and counts failures."""

    _progress: Progress | None = None
    _failures = 0

    @contextmanager
    def stage(self, name: str, unit: str) -> Iterator[None]:
        """Show the bar until the stage ends."""
        if name != "batch" or not (self._bars and sys.stderr.isatty()):
            with super().stage(name, unit):
                yield
            return
        from rich import progress as bars
        from rich.console import Console

        columns = (
            bars.TextColumn("{task.description}", markup=False),
            bars.BarColumn(bar_width=12),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[failed]}{task.fields[rate]}"),
            bars.TimeRemainingColumn(),
        )
        with bars.Progress(*columns, console=Console(file=drawing()), transient=True) as bar:
            bar.add_task("", total=None, failed="", rate="")
            self._progress = bar
            try:
                yield
            finally:
                self._progress = None

    def started(self, video: str) -> None:
        """Show the end of the file's name, which tells files apart."""
        name = on_one_line(video)
        if self._progress:
            shown = name if len(name) <= SHOWN else f"…{name[1 - SHOWN :]}"
            self._progress.update(self._progress.task_ids[0], description=shown)

    def failed(self, error: MalmmError) -> None:
        """Print the error and count it."""
        super().failed(error)
        self._failures += 1
        if self._progress:
            failed = f"{self._failures} failed "
            self._progress.update(self._progress.task_ids[0], failed=failed)

    def progress(self, name: str, done: int, total: int, unit: str) -> None:
        """Move the bar."""
        if self._progress is None:
            super().progress(name, done, total, unit)
            return
        speed = self._progress.tasks[0].speed
        per_minute = f"{60 * speed:.1f}/min" if speed else ""
        task = self._progress.task_ids[0]
        self._progress.update(task, completed=done, total=total, rate=per_minute)
