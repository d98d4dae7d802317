"""The command `malmm remember`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from malmm_cli.cli.options import RunOptions, with_options
from malmm_cli.cli.running import load_model, probed
from malmm_cli.cli.terminal import Terminal
from malmm_cli.errors import UsageError
from malmm_cli.formats import check_writable
from malmm_cli.settings import CAPTION
from malmm_cli.words import counted

_OPTIONS = (
    *("model", "frames", "fps", "max_frames", "start", "end", "decoder", "memory", "policy"),
    *("device", "dtype", "cache", "cache_size", "full_hash"),
    *("overwrite", "offline", "quiet", "no_progress"),
)


@with_options(CAPTION, only=_OPTIONS)
def remember(
    video: Annotated[str, typer.Argument(metavar="VIDEO", show_default=False)],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="File for the memory.")
    ],
    *,
    options: RunOptions,
) -> None:
    """Save a video's memory to a file.

    Later questions need the same model, but not the video. With the published models a file takes
    0.73 MB per memory slot, plus 0.73 MB for the newest frame, however long the video is.

    \b
    malmm remember lecture.mp4 -o lecture.malmm --fps 1 --memory 40
    malmm ask lecture.malmm "What is on the board?"
    malmm caption lecture.malmm
    """
    settings = options.settings(CAPTION)
    if str(output) == "-":
        raise UsageError("-o -: a memory file cannot be printed", hint="choose a file with -o")
    check_writable(output, overwrite=options.overwrite, inputs=[video])
    from malmm_cli.pipeline import memory_file

    if memory_file.is_memory_file(video):
        raise UsageError(f"{video}: is already a memory file", hint="give the video")
    memory_file.check(settings)
    (opened,) = probed(options, [video], settings)
    model = load_model(options)
    events = Terminal.of(options)
    kept = memory_file.remember(opened, model, settings, events)
    size = kept.write(output)
    for warning in kept.warnings:
        events.warn(f"{video}: {warning}")
    frames, slots = counted(kept.frames, "frame"), counted(len(kept.slots), "slot")
    events.note(f"{output}: {frames} in {slots}, {size / 1e6:.2f} MB")
