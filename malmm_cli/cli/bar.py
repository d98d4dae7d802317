"""The line that a terminal shows while a command works: stage, count, rate, time left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from malmm_cli.cli.colors import forced
from malmm_cli.cli.streams import spinning
from malmm_cli.files.escapes import on_one_line
from malmm_cli.processes import pulse

__all__ = ["Bar", "above", "bar"]

LONGEST = 32  # characters of the text in front

_drawn: Any = None  # what is on the screen, of which there is one


class Bar:
    """Shows a text, a spinner while nothing is counted, and how much of a stage is done."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None, detail="")

    def show(self, text: str) -> None:
        """Begin a stage, of which nothing is counted yet."""
        self._progress.reset(self._task, total=None, detail="", description=shortened(text))

    def count(self, done: int, total: int, unit: str) -> None:
        """Show that so much of the stage is done; bytes get their own units."""
        speed = self._progress.tasks[0].speed
        rate = f", {_rate(speed, unit)}" if speed else ""
        size = _text(total, unit) if unit == "bytes" else str(total)
        part = _text(done, unit) if unit == "bytes" else str(done)
        self._progress.update(
            self._task, completed=done, total=total, detail=f"{part}/{size}{rate}"
        )

    def describe(self, text: str) -> None:
        """Change the text in front, and nothing else."""
        self._progress.update(self._task, description=shortened(text))


@contextmanager
def bar(*, shown: bool) -> Iterator[Bar | None]:
    """A bar on a terminal until the end of the block; None elsewhere."""
    if not (shown and sys.stderr.isatty()):
        yield None
        return
    from rich import progress
    from rich.console import Console

    class Left(progress.TimeRemainingColumn):
        """Time left or, where that cannot be known, time spent."""

        def render(self, task: progress.Task) -> Any:
            return (
                progress.TimeElapsedColumn().render(task)
                if task.total is None
                else super().render(task)
            )

    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=12),
        progress.TextColumn("{task.fields[detail]}", markup=False),
        Left(),
    )
    global _drawn
    console = Console(file=spinning(), no_color=forced() is False)
    drawn = progress.Progress(*columns, console=console, transient=True, redirect_stdout=False)
    with drawn:
        _drawn = drawn
        try:
            yield Bar(drawn)
        finally:
            _drawn = None
    pulse.rest()


@contextmanager
def above() -> Iterator[None]:
    """Take the bar off the screen, if there is one, until the end of the block.

    What is written there is above the bar, on lines of its own.
    """
    if _drawn is None:
        yield
        return
    _drawn.stop()
    pulse.rest()
    try:
        yield
    finally:
        _drawn.start()


def shortened(text: str) -> str:
    """The text on one line, its middle left out where it is long."""
    line = on_one_line(text)
    half = LONGEST // 2
    return line if len(line) <= LONGEST else f"{line[: half - 1]}…{line[-half:]}"


def _rate(speed: float, unit: str) -> str:
    """So much a second or, of what takes longer, a minute."""
    slow = unit != "bytes" and speed < 1
    return f"{_text(60 * speed, unit)}/min" if slow else f"{_text(speed, unit)}/s"


def _text(number: float, unit: str) -> str:
    if unit != "bytes":
        return f"{number:.1f} {unit}"
    from rich.filesize import decimal

    return decimal(int(number))
