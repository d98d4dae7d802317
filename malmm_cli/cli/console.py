"""What a person sees besides results: notes, warnings, errors and progress, all on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper

import typer

__all__ = ["complain", "emit", "note", "progress", "set_encodings", "warn"]


def set_encodings() -> None:
    """Results are UTF-8 wherever they go; names of files that are no text get through."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")


def emit(text: str) -> None:
    """Print a result. A reader that went away, or never was, ends the command, and well."""
    if sys.stdout is None:
        raise typer.Exit(0)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # what is still buffered must not raise again when the interpreter ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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
    """Print one line that is good to know; what a terminal would obey is escaped."""
    line = " ".join(message.split())
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    with suppress(OSError, AttributeError):  # nobody reads, or there is no stderr: work goes on
        sys.stderr.write(f"{shown}\n")


@contextmanager
def progress(
    label: str, *, shown: bool, unit: str = "frames"
) -> Iterator[Callable[[int, int], None] | None]:
    """A bar with rate and time left on a terminal, None elsewhere; call it with (done, total)."""
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
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None, rate="")

        def update(done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            rate = f"{speed:.1f} {unit}/s" if speed else ""
            bar.update(task, completed=done, total=total, rate=rate)

        yield update
