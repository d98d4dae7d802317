"""The command `malmm caption`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from malmm_cli.cli.memory_files import for_memory_files
from malmm_cli.cli.options import RunOptions, with_options
from malmm_cli.cli.running import failing, load_model, probed, results, streams_words, unusable
from malmm_cli.cli.terminal import Terminal
from malmm_cli.errors import UsageError
from malmm_cli.settings import caption_prompt


@with_options("caption")
def caption(
    context: typer.Context,
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO", show_default=False)],
    *,
    options: RunOptions,
) -> None:
    """Describe videos.

    VIDEO may also be a memory file made by `malmm remember`; the model that made it is used. One
    that holds pictures is read by any --model.

    --json prints one object for one VIDEO and a list for several, --format jsonl one line for
    each, failures included.

    \b
    malmm caption holiday.mp4
    malmm caption holiday.mp4 --model flan-t5-xl --fps 1 --memory 40
    malmm caption *.mp4 --format jsonl -o captions.jsonl
    malmm caption lecture.mkv --from 10:00 --to 25:30 --json
    """
    options = for_memory_files(options, videos, context)
    settings = options.settings("caption")
    caption_prompt(settings)  # what is wrong with it is told before the model is loaded
    with results(options, videos, several=len(videos) > 1) as add:
        known = unusable(options, videos, "caption")
        fails = partial(failing, add, videos, "caption", known=known)
        with fails(but=UsageError):
            options.check_model(settings)
        if len(known) == len({*videos}):
            for video in videos:
                add(known[video], reported=True)
            return
        with fails():
            opened = probed(options, videos, settings)
        with fails(but=UsageError):
            model = load_model(options)
        settings = model.defaults.settings("caption", **options.changes())
        from malmm_cli.batch.job import attempt
        from malmm_cli.pipeline.answer import caption

        streams = len(videos) == 1 and streams_words(options, settings)
        events = Terminal.of(options, streams=streams)
        work = partial(caption, model=model, settings=settings, events=events)
        if len(videos) == 1:
            with fails():
                result = work(opened[0])
            add(result, streamed=streams)
            return
        for video in videos:
            item = known.get(video)
            add(item or attempt(video, work, "caption"), reported=item is not None)
