"""`malmm batch`."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from malmm_cli.cli.console import warn
from malmm_cli.cli.night import dry_run, night
from malmm_cli.cli.options import RunOptions, seconds, with_options
from malmm_cli.settings import ASK, CAPTION

if TYPE_CHECKING:
    from malmm_cli.batch.worker import Setup

_GIB = 2**30


def _named(metavar: str, told: str, *flags: str, **about: Any) -> Any:
    return typer.Option(*flags, metavar=metavar, help=told, **about)


def _flag(name: str, told: str) -> Any:
    return typer.Option(name, help=told)


@dataclass(frozen=True)
class BatchOptions(RunOptions):
    """Values of the shared options and of batch's own."""

    questions: Annotated[
        list[str] | None,
        _named("QUESTION", "Question to ask about each video; repeatable.", "--ask"),
    ] = None
    workers: Annotated[
        int | None, _named("N", "Number of processes with a model each; GPUs in turn.", min=1)
    ] = None
    ray: Annotated[str | None, _named("ADDRESS", "Run on a Ray cluster: auto, or its address.")] = (
        None
    )
    retry: Annotated[int, _named("N", "Retry a failed item up to N times.", min=0)] = 0
    timeout: Annotated[
        float | None, _named("S", "Time limit for one video, in seconds.", min=0.001)
    ] = None
    limit: Annotated[int | None, _named("N", "Process at most N items.", min=1)] = None
    fail_fast: Annotated[bool, _flag("--fail-fast", "Stop at the first failure.")] = False
    dry_run: Annotated[bool, _flag("--dry-run", "Show what would be done.")] = False
    max_megapixels: Annotated[
        float, _named("N", "Maximum picture size, in million pixels.", min=0)
    ] = 100.0
    max_duration: Annotated[str, _named("T", "Maximum length of a video.")] = "24:00:00"
    max_decoded: Annotated[
        float, _named("GIB", "Maximum size of a video's decoded frames.", min=0)
    ] = 1024.0
    max_memory: Annotated[float, _named("GIB", "Memory limit of the decoding process.", min=0)] = (
        8.0
    )

    def setup(self) -> Setup:
        """What a worker has to know."""
        from malmm_cli.batch.worker import Setup
        from malmm_cli.media.sandbox import Limits

        return Setup(
            model=self.model,
            device=self.device,
            dtype=self.dtype,
            quantize=self.quantize,
            workers=1 if self.ray else self.workers or 1,
            timeout=self.timeout or math.inf,
            full_hash=self.full_hash,
            cache=self.feature_cache(),
            limits=Limits(
                pixels=int(self.max_megapixels * 1e6),
                duration=seconds("--max-duration", self.max_duration) or 0.0,
                decoded=int(self.max_decoded * _GIB),
                memory=int(self.max_memory * _GIB),
            ),
        )


@with_options(CAPTION, without=("output", "json"), kind=BatchOptions)
def batch(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", show_default=False)],
    output: Annotated[
        str, _named("FILE.jsonl|FOLDER/", "File or folder for results.", "-o", "--output")
    ],
    *,
    options: BatchOptions,
) -> None:
    """Caption or question many videos.

    An INPUT is a folder, a file, a glob pattern, or - for a list of paths on stdin.

    An INPUT ending in .jsonl holds tasks: one JSON object per line, with id, video, and question or
    prompt. Questions use the defaults of `malmm ask`.

    Results go to FILE.jsonl, one line as soon as an item is done, or to FOLDER/, one file per video
    in the format of --format. Rerun the same command to process missing, failed or changed
    items.

    \b
    malmm batch holidays/ -o captions.jsonl
    malmm batch "talks/**/*.mkv" -o talks/ --format srt --workers 2
    malmm batch clips/ -o answers.jsonl --ask "who is there?" --ask "where is it?"
    find . -name "*.mp4" | malmm batch - -o captions.jsonl --timeout 600 --retry 1
    """
    for_questions, for_captions = options.for_both()
    captions = for_captions.settings(CAPTION)
    setup = options.setup()

    from malmm_cli.batch.inputs import find_tasks
    from malmm_cli.batch.place import place_of

    place = place_of(Path(output), output, options.format, inputs)
    told = None if options.quiet else warn
    tasks = find_tasks(inputs, sys.stdin, options.questions or (), place.base, told)
    only_asks = all(task.question is not None for task in tasks)
    questions = (options if only_asks else for_questions).settings(ASK)
    if options.dry_run:
        dry_run(options, place, tasks, (captions, questions))
    else:
        night(options, setup, place, tasks, (captions, questions))
