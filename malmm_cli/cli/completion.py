"""What shells complete: names of models, data sets, values of options. Imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import typer

from malmm_cli.errors import UsageError

__all__ = ["check_shell", "commands", "downloadable", "is_completing", "models", "one_of"]

Complete = Callable[[str], list[str]]


def is_completing() -> bool:
    """Whether a shell has started this process to ask how a line goes on."""
    return "_MALMM_COMPLETE" in os.environ


def check_shell(arguments: Sequence[str]) -> None:
    """Raise UsageError where completion was asked for and the shell is not known, or is named."""
    asked = [one for one in arguments if one in ("--install-completion", "--show-completion")]
    if not asked:
        return
    if rest := [one for one in arguments if not one.startswith("-")]:
        raise UsageError(
            f"{asked[0]} takes no shell, but {rest[0]!r} was given",
            hint="run it from the shell that it is for",
        )
    import shellingham

    shells = ("bash", "zsh", "fish", "powershell", "pwsh")
    try:
        name, _ = shellingham.detect_shell()
    except (shellingham.ShellDetectionFailure, OSError):
        name = ""
    if name not in shells:
        raise UsageError(
            f"no completion for the shell {name}" if name else "cannot tell which shell this is",
            hint=f"run it from one of {', '.join(shells)}",
        )


def one_of(values: Iterable[str]) -> Complete:
    """Completes to one of these values."""
    known = tuple(values)

    def complete(incomplete: str) -> list[str]:
        return [value for value in known if value.startswith(incomplete)]

    return complete


def commands(context: typer.Context, incomplete: str) -> list[str]:
    """Commands that may follow those which stand on the line of `malmm help`."""
    found: Any = context.find_root().command
    for word in context.params.get("words") or ():
        found = getattr(found, "commands", {}).get(word)
    return [name for name in getattr(found, "commands", {}) if name.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """Known models and, below what was typed, folders."""
    from malmm_cli.hub.registry import KNOWN

    return [name for name in KNOWN if name.startswith(incomplete)] + _folders(incomplete)


def downloadable(incomplete: str) -> list[str]:
    """Known models that are on the Hub, not bundled."""
    from malmm_cli.hub.registry import KNOWN

    return [n for n, known in KNOWN.items() if known.repository and n.startswith(incomplete)]


def _folders(incomplete: str) -> list[str]:
    """Folders whose path begins so, with a slash behind; hidden ones where a dot was typed."""
    parent, name = os.path.split(incomplete)
    try:
        with os.scandir(os.path.expanduser(parent) or ".") as entries:
            found = [entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return []
    return sorted(
        os.path.join(parent, one, "")
        for one in found
        if one.startswith(name) and (name or not one.startswith("."))
    )
