"""What the commands of `malmm bench` share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Annotated, Any, TypeVar

import typer

from malmm_cli.cli.console import note
from malmm_cli.cli.options import RunOptions
from malmm_cli.cli.terminal import Terminal
from malmm_cli.errors import UsageError
from malmm_cli.settings import Settings

__all__ = ["PANEL", "Videos", "check_growth", "check_loadable", "measuring", "note_machine"]

PANEL = "Benchmark"  # the heading of their own options

Command = TypeVar("Command", bound=Callable[..., None])

Videos = Annotated[list[str], typer.Argument(metavar="VIDEO", show_default=False)]


def measuring(command: Command) -> Command:
    """A command with a bar for as long as it runs: rows are minutes apart, and stand above it."""

    @wraps(command)
    def run(*given: Any, **named: Any) -> None:
        with Terminal().stage("measuring", ""):
            command(*given, **named)

    signature = inspect.signature(command, eval_str=True)
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return run  # type: ignore[return-value]


def note_machine(machine: Mapping[str, Any]) -> None:
    """Print what the numbers were measured on."""
    note(", ".join(f"{name} {value}" for name, value in machine.items()))


def check_loadable(options: RunOptions) -> None:
    """Raise for a device or a model that is not on this machine, before anything is measured."""
    from malmm_cli import hub
    from malmm_cli.models.device import pick_device

    pick_device(options.device)
    hub.locate(options.model, offline=True)


def check_growth(options: RunOptions) -> Settings:
    """Settings of which growth is measured; UsageError for a model or a length without a bank."""
    from malmm_cli.pipeline.defaults import defaults_of

    if not {*defaults_of(options.model).banks} - {"none"}:
        raise UsageError(f"{options.model}: has no memory bank", hint="`malmm models` lists others")
    if options.memory is not None and options.memory < 1:
        raise UsageError(
            f"--memory {options.memory}: must be at least 1",
            hint="what a model does without a memory is measured too",
        )
    return options.settings("ask")
