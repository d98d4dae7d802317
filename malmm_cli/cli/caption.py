"""`malmm caption`."""

from __future__ import annotations

from typing import Annotated

import typer

from malmm_cli.cli.options import RunOptions, with_options
from malmm_cli.cli.running import load_model, results, shown_progress
from malmm_cli.data import Result
from malmm_cli.settings import CAPTION


@with_options(CAPTION)
def caption(
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO", show_default=False)],
    *,
    options: RunOptions,
) -> None:
    """Say what each video shows.

    \b
    malmm caption holiday.mp4
    malmm caption holiday.mp4 --model flan-t5-xl --fps 1 --memory 40
    malmm caption *.mp4 --format jsonl -o captions.jsonl
    malmm caption lecture.mkv --from 10:00 --to 25:30 --json
    """
    settings = options.settings(CAPTION)
    with results(options, videos) as add:
        model = load_model(options, videos, settings)
        from malmm_cli import batch, pipeline

        def work(video: str) -> Result:
            with shown_progress(options, video) as update:
                return pipeline.caption(video, model=model, settings=settings, on_progress=update)

        alone = len(videos) == 1  # then its error is the command's
        for item in map(work, videos) if alone else batch.run(videos, work, "caption"):
            add(item)
