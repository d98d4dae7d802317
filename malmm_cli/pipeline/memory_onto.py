"""What a memory file asks of a video that is to come after it; no torch is needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

from malmm_cli.errors import MediaError, UsageError
from malmm_cli.pipeline.memory_header import (
    FORMAT,
    KIND,
    SAMPLING,
    USUAL,
    is_gone,
    is_of,
    model_of,
    other_model,
    read_metadata,
    sampling_of,
)
from malmm_cli.settings import Changes, flag

__all__ = ["model_for", "sampling_for"]

M = TypeVar("M")

FREE = ("start", "end", "decoder")  # of the new video alone


def sampling_for(onto: str | Path, changes: Changes) -> Changes:
    """Changes with the settings of the file, but for what part of the video to look at, and how.

    Raises MediaError for what is no memory file of this version, and UsageError for other settings
    than the file's.
    """
    if not os.path.lexists(onto):
        hint = "make it: malmm remember VIDEO -o FILE"
        raise UsageError(f"{onto}: no such file", hint=hint)
    version = read_metadata(onto).format
    if version != FORMAT:
        raise MediaError(
            f"{onto}: is of version {version.removeprefix(KIND)}, which nothing can be added to",
            hint="rebuild it: malmm remember VIDEO -o FILE",
            kind="OtherVersion",
        )
    made = {k: v for k, v in {**USUAL, **sampling_of(onto)}.items() if k not in FREE}
    asked: dict[str, Any] = {**changes}
    asked |= {"memory_seed": asked["seed"] or 0} if "seed" in asked else {}
    for name in SAMPLING:
        if name in made and name in asked and asked[name] != made[name]:
            raise UsageError(
                f"{flag(name)}: {onto} is a memory file, and this was fixed when it was made",
                hint="leave it out, or make another file: malmm remember VIDEO -o FILE",
            )
    found: Changes = {**asked, **made}  # type: ignore[typeddict-item]
    return found


def model_for(onto: str | Path, model: M | None) -> M | str:
    """The model that was given, or the one that the file was made with.

    Raises UsageError for the name or folder of another one, and for a folder that is gone.
    """
    made = model_of(onto)
    if model is None and is_gone(made):
        raise UsageError(
            f"{onto}: was made with the model in {made}, which does not exist",
            hint="if that folder was moved, use --model FOLDER",
        )
    if isinstance(model, str | os.PathLike) and not is_of(made, os.fspath(model)):
        raise other_model(os.fspath(onto), made, os.fspath(model))
    return made if model is None else model
