"""`malmm batch`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from malmm_cli.cli.console import note
from malmm_cli.cli.options import RunOptions, with_options
from malmm_cli.cli.running import load_model, report, shown_progress
from malmm_cli.errors import UsageError
from malmm_cli.settings import CAPTION


@with_options(CAPTION, without=("output", "format", "json"))
def batch(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", show_default=False)],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.jsonl", help="Where results go.")
    ],
    *,
    options: RunOptions,
) -> None:
    """Caption every video of folders, files, or a list on stdin (-), one JSON line each.

    A line is written as soon as its video is done; a video that fails is recorded with its reason,
    and the rest goes on.

    \b
    malmm batch holidays/ -o captions.jsonl
    malmm batch talks/ extra.mkv -o captions.jsonl --fps 0.5
    find . -name "*.mp4" | malmm batch - -o captions.jsonl
    """
    settings = options.settings(CAPTION)
    if output.suffix.lower() != ".jsonl":
        raise UsageError(
            f"-o {output}: results are JSON lines", hint="name a file ending in .jsonl"
        )
    from malmm_cli import batch as batches
    from malmm_cli import pipeline
    from malmm_cli.output import Failure, check_writable, format_line, open_lines

    videos = batches.find_videos(inputs, sys.stdin or ())
    check_writable(output, overwrite=options.overwrite, inputs=videos)
    model = load_model(options)
    failed = done = 0
    with (
        open_lines(output, overwrite=options.overwrite) as write,
        shown_progress(options, "", unit="videos") as update,
    ):
        items = batches.run(
            videos, lambda video: pipeline.caption(video, model=model, settings=settings), "caption"
        )
        for done, item in enumerate(items, start=1):
            write(format_line(item, "jsonl", several=True))
            report(item, options)
            failed += isinstance(item, Failure)
            if update:
                update(done, len(videos))
    if not options.quiet:
        note(f"{done - failed} of {len(videos)} videos captioned, {failed} failed: {output}")
    if failed:
        raise typer.Exit(1)
