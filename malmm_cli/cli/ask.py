"""The command `malmm ask`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from malmm_cli.cli.options import RunOptions, with_options
from malmm_cli.cli.running import load_model, probed, results, streams_words
from malmm_cli.cli.terminal import Terminal
from malmm_cli.errors import UsageError
from malmm_cli.settings import ASK, prompts_for


@with_options(ASK)
def ask(
    video: Annotated[str, typer.Argument(metavar="VIDEO", show_default=False)],
    questions: Annotated[list[str], typer.Argument(metavar="QUESTION", show_default=False)],
    *,
    options: RunOptions,
) -> None:
    """Answer questions about a video.

    The video is read once for all questions.

    VIDEO may also be a memory file made by `malmm remember`.

    \b
    malmm ask cooking.mp4 "What does she add after the eggs?"
    malmm ask cooking.mp4 "How many eggs?" "What is fried first?" --json
    malmm ask cooking.malmm "What is fried first?"
    malmm ask match.mp4 "Who scores?" --fps 2 --from 44:00 --to 46:30
    """
    settings = options.settings(ASK)
    prompts_for(questions, settings)  # what is wrong with them is told before the model is loaded
    _check_order(video, questions)
    with results(options, [video], questions=len(questions)) as add:
        (opened,) = probed(options, [video], settings)
        model = load_model(options)
        from malmm_cli.pipeline.answer import ask

        streams = len(questions) == 1 and streams_words(options, settings)
        events = Terminal.of(options, streams=streams)
        for answer in ask(opened, questions, model=model, settings=settings, events=events):
            add(answer, streamed=streams)


def _check_order(video: str, questions: list[str]) -> None:
    """Raise UsageError where a question stands in the place of the video."""
    if not os.path.exists(video) and any(map(os.path.isfile, questions)):
        raise UsageError(
            f"{video}: no such file", hint='VIDEO comes first: malmm ask video.mp4 "question"'
        )
