"""Inputs that do not exist: the error, with a guess at what was meant."""

from __future__ import annotations

import glob
import os
from difflib import get_close_matches
from pathlib import Path

from malmm_cli.errors import UsageError
from malmm_cli.media.files import shown

__all__ = ["missing"]


def missing(given: str) -> UsageError:
    """The error for a path that does not exist, or for a pattern that matches nothing."""
    is_pattern = glob.has_magic(given)
    what = "no video matches this pattern" if is_pattern else "no such file or folder"
    near = _near(given)
    return UsageError(
        f"{shown(given)}: {what}",
        hint=f"did you mean {shown(near)}?" if near else None,
        kind="Missing",
    )


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
        close = get_close_matches(part, names, n=1, cutoff=0.7)
        return str(Path(parent, close[0], *rest)) if close else None
    return None
