"""A model folder's notes on its training: `malmm.toml`, which training copies from its base."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from malmm_cli.errors import ModelError

__all__ = ["FILE", "WORLDS", "Origin", "origin_of"]

FILE = "malmm.toml"
WORLDS = ("", "drawings")  # any video; the drawn ones of `malmm synth`


@dataclass(frozen=True)
class Origin:
    """A `note` for users of a model, and the kind of videos, one of `WORLDS`, that it knows."""

    note: str = ""
    world: str = ""


def origin_of(folder: Path) -> Origin:
    """Read a folder's origin, empty without the file; raises ModelError for a broken one."""
    path = folder / FILE
    if not path.is_file():
        return Origin()
    try:
        origin = Origin(**tomllib.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path}: {error}", hint="correct the file, or remove it") from error
    if not isinstance(origin.note, str) or origin.world not in WORLDS:
        raise ModelError(
            f"{path}: note must be text, and world one of {WORLDS}",
            hint="correct the file, or remove it",
        )
    return origin
