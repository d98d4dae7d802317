"""Results on stdout; notes, warnings and errors on stderr."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext

import typer

from malmm_cli.cli.bar import above
from malmm_cli.cli.colors import coloured, painted
from malmm_cli.cli.streams import drawing
from malmm_cli.cli.wrapping import fitted, width
from malmm_cli.files.escapes import on_one_line

__all__ = ["complain", "emit", "keyboard", "note", "warn"]


def emit(text: str) -> None:
    """Print a result. A reader that went away ends the command, and well."""
    try:
        with above() if sys.stdout.isatty() else nullcontext():
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
    """Print one line that is good to know; a terminal has it wrapped."""
    line = f"{on_one_line(message)}\n"
    if sys.stderr.isatty():
        line = fitted(line, width())
    with above():
        if not coloured():
            sys.stderr.write(line)
            return
        # a terminal's stream escapes colours
        stream = drawing() if sys.stderr.isatty() else sys.stderr
        stream.write(painted(line))
        stream.flush()


def keyboard(what: str) -> None:
    """Say that the command waits for what is typed, if stdin is a terminal."""
    if sys.stdin.isatty():
        end = "Ctrl-Z and Enter" if os.name == "nt" else "Ctrl-D"
        note(f"reading {what} from the keyboard, one a line; {end} ends the list")
