"""Memory files on the command line: they fix some options and bring their model; without torch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from malmm_cli.cli.options import RunOptions
from malmm_cli.errors import MediaError, UsageError
from malmm_cli.settings import flag

__all__ = ["for_memory_files", "going_on", "is_given"]

GIVEN = ("COMMANDLINE", "ENVIRONMENT")  # a default, from wherever, chooses no model for a file


def for_memory_files(
    options: RunOptions, videos: Sequence[str], context: typer.Context
) -> RunOptions:
    """Options with the model that the memory files among the videos were made with.

    Files that hold pictures are read by any model that is named, and where none is, by that of
    another file or of their own. Damaged ones are left to whoever reads them. Raises UsageError for
    options that were fixed when a file was made, where --model or MALMM_MODEL names another model,
    where files were made with different models, and where a model's folder is gone and none was
    given.
    """
    from malmm_cli.pipeline.memory_header import holds_pictures, is_memory_file, model_of

    # model → the first file that was made with it
    needed, usual = dict[str, str](), dict[str, str]()
    for file in filter(is_memory_file, videos):
        with suppress(MediaError):
            made = usual if holds_pictures(file) else needed
            made.setdefault(model_of(file), file)
    for file in (*needed.values(), *usual.values()):
        _check_free(options, file)
    if is_given(context, "model"):
        source: Any = context.get_parameter_source("model")
        for model, file in needed.items():
            _check_given(options.model, source.name, model, file)
        return options
    return replace(options, model=_only(needed or usual)) if needed or usual else options


def going_on(options: RunOptions, onto: Path, context: typer.Context) -> RunOptions:
    """Options with the model of a memory file that a video is to come after.

    Raises UsageError for other options than were fixed when it was made, and MediaError for what
    is no memory file.
    """
    from malmm_cli.pipeline.memory_onto import model_for, sampling_for

    sampling_for(onto, options.changes())
    given = options.model if is_given(context, "model") else None
    return replace(options, model=model_for(onto, given))


def is_given(context: typer.Context, name: str) -> bool:
    """Whether an option was given, on the command line or by the environment."""
    source: Any = context.get_parameter_source(name)
    return bool(source) and source.name in GIVEN


def _check_free(options: RunOptions, file: str) -> None:
    """Raise UsageError for options about what was decided when a memory file was made."""
    from malmm_cli.pipeline.memory_header import SAMPLING

    for name in SAMPLING:
        if getattr(options, name, None) is not None:
            raise UsageError(
                f"{flag(name)}: {file} is a memory file, and this was fixed when it was made",
                hint="leave it out, or rebuild the file: malmm remember VIDEO -o FILE",
            )


def _check_given(given: str, source: str, model: str, file: str) -> None:
    """Raise UsageError for another model than the file's; its folder may have been moved."""
    from malmm_cli.pipeline.memory_header import is_of, other_model

    if is_of(model, given):
        return
    hint = None
    if source == "ENVIRONMENT":
        hint = f"MALMM_MODEL is set; unset it, or use --model {model}"
    raise other_model(file, model, given, hint)


def _only(made: dict[str, str]) -> str:
    """The model of all files."""
    (model, file), *others = made.items()
    for other, second in others:
        raise UsageError(
            f"{file} was made with {model}, {second} with {other}", hint="use them one by one"
        )
    from malmm_cli.pipeline.memory_header import is_gone

    if is_gone(model):
        raise UsageError(
            f"{file}: was made with the model in {model}, which does not exist",
            hint="if that folder was moved, use --model FOLDER",
        )
    return model
