"""What the commands of `malmm bench` share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from malmm_cli.cli.console import note

__all__ = ["PANEL", "Videos", "note_machine"]

PANEL = "Benchmark"  # the heading of their own options

Videos = Annotated[list[str], typer.Argument(metavar="VIDEO", show_default=False)]


def note_machine(machine: Mapping[str, Any]) -> None:
    """Print what the numbers were measured on."""
    note(", ".join(f"{name} {value}" for name, value in machine.items()))
