"""Inputs that do not exist: the error, with a guess at what was meant."""

from __future__ import annotations

import glob
import os
from difflib import get_close_matches
from pathlib import Path

from malmm_cli.errors import UsageError
from malmm_cli.media.files import shown

__all__ = ["missing", "similar"]


def missing(given: str) -> UsageError:
    """The error for a path that does not exist, or for a pattern that matches nothing."""
    is_pattern = glob.has_magic(given)
    what = "no video matches this pattern" if is_pattern else "no such file or folder"
    return UsageError(f"{shown(given)}: {what}", hint=similar(given), kind="Missing")


def similar(given: str) -> str | None:
    """The hint for a path that does not exist: one with a similar name, if there is any."""
    near = _near(given)
    if near is None or not (glob.has_magic(near) or os.path.exists(near)):
        return None
    return f"did you mean {shown(near)}?"


def _near(given: str) -> str | None:
    """The path with its first missing part replaced by a similar name, if there is one."""
    path = Path(given)
    for depth, part in enumerate(path.parts):
        if glob.has_magic(part):
            return None
        parent, rest = Path(*path.parts[:depth]), path.parts[depth + 1 :]
        if os.path.lexists(parent / part):
            continue
        try:
            names = [name for name in os.listdir(parent) if not name.startswith(".")]
        except OSError:
            return None
        stem = Path(part).stem  # alike suffixes make no name similar
        close = [
            name
            for name in get_close_matches(part, names, cutoff=0.7)
            if get_close_matches(stem, [Path(name).stem])
        ]
        return str(Path(parent, close[0], *rest)) if close else None
    return None
