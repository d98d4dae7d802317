"""Results on stdout; notes, warnings and errors on stderr."""

from __future__ import annotations

import sys

import typer

from malmm_cli.files.escapes import on_one_line

__all__ = ["complain", "emit", "note", "warn"]


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
    sys.stderr.write(f"{on_one_line(message)}\n")
