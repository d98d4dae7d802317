"""Whether messages are coloured: --color, else the environment, else the config file."""

from __future__ import annotations

import os
import sys

from malmm_cli.errors import UsageError
from malmm_cli.text.words import known_names

__all__ = ["CHOICES", "choose", "coloured", "forced", "forget", "painted"]

CHOICES = ("auto", "always", "never")
_PAINT = {"error": "1;31", "warning": "33", "hint": "36"}
_chosen = "auto"


def choose(given: str | None) -> None:
    """Decide for this process; `given` is the option's value. Raises UsageError for a wrong one."""
    global _chosen
    source = ""
    if given is None:
        from malmm_cli.cli import config

        found = config.origin_of("color")
        given, source = str(found.value), f", from {found}"
    if given not in CHOICES:
        raise UsageError(f"unknown color {given!r}{source}", hint=known_names(given, CHOICES))
    _chosen = given


def forget() -> None:
    """Undo `choose`, for a process that runs several commands."""
    global _chosen
    _chosen = "auto"


def coloured() -> bool:
    """Whether messages on stderr are coloured."""
    if _chosen == "auto":
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return _chosen == "always"


def forced() -> bool | None:
    """What Rich is told of colours: True, False, or None where it finds out by itself."""
    return None if _chosen == "auto" else _chosen == "always"


def painted(message: str) -> str:
    """A message whose first word, where it is "error:" or the like, is in colour."""
    kind, colon, rest = message.partition(":")
    if not colon or kind not in _PAINT:
        return message
    return f"\x1b[{_PAINT[kind]}m{kind}:\x1b[0m{rest}"
