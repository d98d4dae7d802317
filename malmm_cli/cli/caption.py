"""`malmm caption`."""

from __future__ import annotations

from typing import Annotated

import typer

from malmm_cli.cli.options import RunOptions, with_options
from malmm_cli.cli.running import load_model, results, shown_progress, shown_words
from malmm_cli.settings import CAPTION
from malmm_cli.types import Result


@with_options(CAPTION)
def caption(
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO", show_default=False)],
    *,
    options: RunOptions,
) -> None:
    """Describe videos.

    VIDEO may also be a memory file made by `malmm remember`.

    \b
    malmm caption holiday.mp4
    malmm caption holiday.mp4 --model flan-t5-xl --fps 1 --memory 40
    malmm caption *.mp4 --format jsonl -o captions.jsonl
    malmm caption lecture.mkv --from 10:00 --to 25:30 --json
    """
    settings = options.settings(CAPTION)
    with results(options, videos) as add:
        model = load_model(options, videos, settings)
        from malmm_cli.batch.job import attempt
        from malmm_cli.pipeline.answer import caption

        def work(video: str) -> Result:
            with shown_progress(options, video) as update:
                return caption(video, model=model, settings=settings, on_progress=update)

        if len(videos) > 1:
            for video in videos:
                add(attempt(video, work, "caption"))
            return
        with shown_words(options, settings, videos[0], alone=True) as (update, words):
            result = caption(
                videos[0], model=model, settings=settings, on_progress=update, on_text=words
            )
        add(result, told=words is not None)
