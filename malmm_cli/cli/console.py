"""Notes, warnings, errors and progress, all on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from malmm_cli.cli.colors import coloured, forced, painted
from malmm_cli.cli.streams import drawing
from malmm_cli.files.escapes import on_one_line

__all__ = ["complain", "download_progress", "emit", "note", "progress", "warn"]


def emit(text: str) -> None:
    """Print a result. A reader that went away ends the command, and well."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise typer.Exit(0) from None


def complain(message: str, hint: str | None = None) -> None:
    """Print an error as one plain line, and what to do about it as another."""
    note(f"error: {message}")
    if hint:
        note(f"hint: {hint}")


def warn(message: str) -> None:
    """Print a warning as one line."""
    note(f"warning: {message}")


def note(message: str) -> None:
    """Print one line that is good to know."""
    line = f"{on_one_line(message)}\n"
    if not coloured():
        sys.stderr.write(line)
        return
    stream = drawing() if sys.stderr.isatty() else sys.stderr  # a terminal's stream escapes colours
    stream.write(painted(line))
    stream.flush()


@contextmanager
def progress(
    label: str, *, shown: bool, unit: str
) -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar with rate and time left on a terminal, None elsewhere; call it (name, done, total)."""
    if not (shown and sys.stderr.isatty()):
        yield None
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[rate]}"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(
        *columns, console=Console(file=drawing(), no_color=forced() is False), transient=True
    ) as bar:
        task = bar.add_task(on_one_line(label), total=None, rate="")

        def update(_: str, done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            rate = f"{speed:.1f} {unit}/s" if speed else ""
            bar.update(task, completed=done, total=total, rate=rate)

        yield update


@contextmanager
def download_progress(*, shown: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """Bars of the file that is coming and of all, on a terminal; call it with (file, done, size).

    It has to be called once for each file before the first one grows.
    """
    if not (shown and sys.stderr.isatty()):
        yield None
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    files: dict[str, tuple[int, int]] = {}
    with bars.Progress(
        *columns, console=Console(file=drawing(), no_color=forced() is False), transient=True
    ) as bar:

        def update(file: str, done: int, size: int) -> None:
            if not files:
                bar.add_task("", total=None)
                bar.add_task("all files", total=None)
            file = on_one_line(file)
            files[file] = (done, size)
            arrived, whole = map(sum, zip(*files.values(), strict=True))
            current, everything = bar.task_ids
            if bar.tasks[0].description != file:
                bar.reset(current, description=file)
            bar.update(current, completed=done, total=size)
            bar.update(everything, completed=arrived, total=whole)

        yield update
