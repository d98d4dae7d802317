"""The command `malmm remember`."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    *("memory", "policy", "merge", "mean", "seed"),
    *("device", "dtype", "cache", "cache_size", "full_hash"),
    *("overwrite", "offline", "quiet", "no_progress"),
)


@with_options("caption", only=_OPTIONS)
def remember(
    video: Annotated[str, typer.Argument(metavar="VIDEO", show_default=False)],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="File for the memory.")
    ],
    *,
    options: RunOptions,
) -> None:
    """Save a video's memory to a file.

    Later questions use the same model, and do not need the video. With the published models a file
    takes 0.73 MB per memory slot, plus 0.73 MB for the newest frame, however long the video is.

    \b
    malmm remember lecture.mp4 -o lecture.memory --fps 1 --memory 40
    malmm ask lecture.memory "What is on the board?"
    malmm caption lecture.memory
    """
    settings = options.settings("caption")
    if str(output) == "-":
        raise UsageError("-o -: a memory file cannot be printed", hint="choose a file with -o")
    check_writable(output, overwrite=options.overwrite, inputs=[video])
    from malmm_cli.pipeline.memory_header import check, is_memory_file

    if is_memory_file(video):
        raise UsageError(f"{video}: is already a memory file", hint="give the video")
    check(settings)
    options.check_model(settings)
    (opened,) = probed(options, [video], settings)
    model = load_model(options)
    from malmm_cli.pipeline import memory_file

    events = Terminal.of(options)
    kept = memory_file.remember(opened, model, events=events, **options.changes())
    size = _write(kept, output, overwrite=options.overwrite)
    for warning in kept.warnings:
        events.warn(f"{video}: {warning}")
    frames, slots = counted(kept.frames, "frame"), counted(len(kept.slots), "slot")
    events.note(f"{output}: {frames} in {slots}, {size / 1e6:.2f} MB")


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
