"""The command `malmm remember`."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from malmm_cli.cli.memory_files import going_on
from malmm_cli.cli.options import RunOptions, with_options
from malmm_cli.cli.running import load_model, probed
from malmm_cli.cli.terminal import Terminal
from malmm_cli.errors import OUTPUT_EXISTS, MalmmError, OutputError, UsageError
from malmm_cli.formats import check_writable
from malmm_cli.text.words import counted

if TYPE_CHECKING:
    from malmm_cli.pipeline.memory_file import MemoryFile

_OPTIONS = (
    *("model", "frames", "fps", "max_frames", "start", "end", "decoder"),
    *("memory", "policy", "merge", "mean", "fill", "seed"),
    *("device", "dtype", "cache", "cache_size", "full_hash"),
    *("overwrite", "offline", "quiet", "no_progress"),
)


@with_options("caption", only=_OPTIONS)
def remember(
    context: typer.Context,
    video: Annotated[str, typer.Argument(metavar="VIDEO", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="File for the memory."),
    ] = None,
    onto: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Memory file that the video comes after."),
    ] = None,
    *,
    options: RunOptions,
) -> None:
    """Save a video's memory to a file.

    Later questions use the same model, and do not need the video. With InstructBLIP's models a file
    takes 0.73 MB per memory slot, plus 0.73 MB for the newest frame, however long the video is.
    With --fill keep, where the model has it, a file holds pictures, and any model answers.

    With --onto the video comes after what FILE holds, with the model and the settings of FILE. The
    result replaces FILE, or is written to another one with -o.

    \b
    malmm remember lecture.mp4 -o lecture.memory --fps 1 --memory 40
    malmm ask lecture.memory "What is on the board?"
    malmm caption lecture.memory
    malmm remember second.mp4 --onto lecture.memory
    """
    target = _target(output, onto)
    if onto is not None:
        options = going_on(options, onto, context)
    settings = options.settings("caption")
    replaces = options.overwrite or output is None
    check_writable(target, overwrite=replaces, inputs=[video])
    from malmm_cli.pipeline.memory_header import check, is_memory_file

    if is_memory_file(video):
        raise UsageError(f"{video}: is already a memory file", hint="give the video")
    check(settings)
    options.check_model(settings)
    (opened,) = probed(options, [video], settings)
    model = load_model(options)
    from malmm_cli.pipeline import remembering

    events = Terminal.of(options)
    kept = remembering.remember(opened, model, events=events, onto=onto, **options.changes())
    size = _write(kept, target, overwrite=replaces)
    for warning in kept.warnings:
        events.warn(f"{video}: {warning}")
    frames, slots = counted(kept.frames, "frame"), counted(len(kept.counts), "slot")
    form = "" if kept.pictures is None else f", {counted(len(kept.pictures.files), 'picture')}"
    events.note(f"{target}: {frames} in {slots}{form}, {size / 1e6:.2f} MB")


def _target(output: Path | None, onto: Path | None) -> Path:
    """The file to write; UsageError where none was named, or one that cannot be."""
    target = output or onto
    if target is None:
        raise UsageError("remember needs -o FILE, or --onto FILE", hint="choose a file with -o")
    if str(target) == "-":
        raise UsageError("-o -: a memory file cannot be printed", hint="choose a file with -o")
    return target


def _write(kept: MemoryFile, output: Path, *, overwrite: bool) -> int:
    """Write a memory, which took long to make, and return its size in bytes.

    Where another program made a file of that name meanwhile, the memory gets a free name beside it,
    and OutputError says which.
    """
    try:
        return kept.write(output, overwrite=overwrite)
    except MalmmError as error:
        if error.kind != OUTPUT_EXISTS:
            raise
        names = (output.with_stem(f"{output.stem}-{number}") for number in count(2))
        free = next(name for name in names if not os.path.lexists(name))
        kept.write(free)
        raise OutputError(
            f"{output}: exists; another program made it meanwhile",
            hint=f"the memory is in {free}",
            kind=OUTPUT_EXISTS,
        ) from error
