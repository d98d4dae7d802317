"""`malmm ask`."""

from __future__ import annotations

from typing import Annotated

import typer

from malmm_cli.cli.options import RunOptions, with_options
from malmm_cli.cli.running import load_model, results, shown_words
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
    with results(options, [video], questions=len(questions)) as add:
        model = load_model(options, [video], settings)
        from malmm_cli.pipeline.answer import ask

        alone = len(questions) == 1
        with shown_words(options, settings, video, alone=alone) as (update, words):
            answers = ask(
                video,
                questions,
                model=model,
                settings=settings,
                on_progress=update,
                on_text=words,
            )
        for answer in answers:
            add(answer, told=words is not None)
