"""The command `malmm ask`."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import typer

from malmm_cli.cli.console import keyboard, note
from malmm_cli.cli.memory_files import for_memory_files
from malmm_cli.cli.options import RunOptions, with_options
from malmm_cli.cli.questions import LISTED, with_listed
from malmm_cli.cli.running import failing, load_model, probed, results, streams_words
from malmm_cli.cli.terminal import Terminal
from malmm_cli.errors import UsageError
from malmm_cli.settings import check_order, prompts_for


@with_options("ask")
def ask(
    context: typer.Context,
    video: Annotated[str, typer.Argument(metavar="VIDEO", show_default=False)],
    questions: Annotated[list[str], typer.Argument(metavar="QUESTION", show_default=False)],
    *,
    options: RunOptions,
) -> None:
    """Answer questions about a video.

    The video is read once for all questions. A QUESTION of - stands for those on stdin, one per
    line.

    VIDEO may also be a memory file made by `malmm remember`; the model that made it is used. One
    that holds pictures is read by any --model.

    --json prints one object for one QUESTION, and a list for several or -. --format jsonl prints
    one line for each. Both include failures.

    \b
    malmm ask cooking.mp4 "What does she add after the eggs?"
    malmm ask cooking.mp4 "How many eggs?" "What is fried first?" --json
    malmm ask cooking.mp4 - --format jsonl < questions.txt
    malmm ask cooking.memory "What is fried first?"
    malmm ask match.mp4 "Who scores?" --fps 2 --from 44:00 --to 46:30
    """
    check_order(video, questions, 'VIDEO comes first: malmm ask video.mp4 "question"')
    options = for_memory_files(options, [video], context)
    settings = options.settings("ask")
    several = len(questions) > 1 or LISTED in questions
    if LISTED in questions and not options.quiet:
        keyboard("questions")
    questions = with_listed(questions, sys.stdin)
    if not options.quiet:
        _note_words(questions)
    prompts_for(questions, settings)  # what is wrong with them is told before the model is loaded
    with results(options, [video], several=several) as add:
        fails = partial(failing, add, [video], "ask", len(questions))
        with fails(but=UsageError):
            options.check_model(settings)
        with fails():
            (opened,) = probed(options, [video], settings)
        with fails(but=UsageError):
            model = load_model(options)
        settings = model.defaults.settings("ask", **options.changes())
        from malmm_cli.pipeline.answer import ask

        streams = not several and streams_words(options, settings)
        events = Terminal.of(options, streams=streams)
        with fails():
            answers = ask(opened, questions, model=model, settings=settings, events=events)
        for answer in answers:
            add(answer, streamed=streams)


def _note_words(questions: list[str]) -> None:
    """Print a note where one question seems to have come as a question for each of its words."""
    *first, _ = questions
    if first and not any(" " in one for one in questions) and not any("?" in o for o in first):
        whole = " ".join(questions)
        note(
            f"note: {len(questions)} questions of one word each; "
            f'one question goes in quotation marks: "{whole}"'
        )
