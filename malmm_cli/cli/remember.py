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
from malmm_cli.text.words import counted

_OPTIONS = (
    *("model", "frames", "fps", "max_frames", "start", "end", "decoder"),
    *("memory", "policy", "merge", "mean", "fill", "seed"),
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
    size = kept.write(output, overwrite=True)  # where it must not, that was said above
    for warning in kept.warnings:
        events.warn(f"{video}: {warning}")
    frames, slots = counted(kept.frames, "frame"), counted(len(kept.slots), "slot")
    events.note(f"{output}: {frames} in {slots}, {size / 1e6:.2f} MB")
