"""Commands that measure whole videos: stage by stage, and everything as a page."""

from __future__ import annotations

import json as json_format
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from malmm_cli.cli.bench.common import (
    PANEL,
    Videos,
    check_growth,
    check_loadable,
    measuring,
    note_machine,
)
from malmm_cli.cli.console import emit, note
from malmm_cli.cli.options import RunOptions, with_options
from malmm_cli.cli.terminal import Terminal
from malmm_cli.errors import UsageError
from malmm_cli.formats import check_writable
from malmm_cli.text.words import known_names

if TYPE_CHECKING:
    from malmm_cli.bench import Run

__all__ = ["everything", "video"]

_OPTIONS = ("model", "frames", "fps", "memory", "max_new_tokens", "device", "dtype", "json")
_FORMS = ("encoder-step", "decode", "malmm", "bound", "naive", "transformers")
_Questions = Annotated[
    list[int] | None,
    typer.Option(
        "--questions",
        metavar="N",
        min=2,
        rich_help_panel=PANEL,
        help="Number of questions to measure; repeatable.",
    ),
]
_Calls = Annotated[
    list[int] | None,
    typer.Option(
        metavar="N",
        min=2,
        rich_help_panel=PANEL,
        help="Number of questions to ask in one run and in as many; repeatable.",
    ),
]
_Compare = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        rich_help_panel=PANEL,
        help="Maximum number of frames for naive and transformers.",
    ),
]


@with_options("ask", only=_OPTIONS)
@measuring
def video(
    videos: Videos,
    *,
    form: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FORM",
            rich_help_panel=PANEL,
            help="Form to measure, see above; repeatable.  [default: all]",
        ),
    ] = None,
    questions: _Questions = None,
    calls: _Calls = None,
    compare: _Compare = 120,
    options: RunOptions,
) -> None:
    """Time whole videos against several baselines.

    Each stage is timed. Forms:

    \b
    malmm: as `malmm ask` does it      encoder-step: on decoded frames
    decode: only decoding              bound: only the encoder's arithmetic
    naive: all pixels first, then one frame at a time, projecting the whole bank
    transformers: its own class on the same weights, which has no memory

    `before` is the time before generation, `rate` its frames per second, `MiB` and `GPU` are peak
    memory. `ratio` is malmm's `before` over the larger of encoder-step's and decode's; for the
    baselines, their `before` over malmm's. --questions also times several questions, to the
    video and to a memory file; `with reading` adds the reading of prompts. --calls times whole
    runs: one that asks all questions, and as many of one question, of which three are measured.
    Keep the machine idle. For full sizes, pass --model the folder of `malmm bench model`.

    \b
    malmm bench video short.mp4 long.mp4 --model tiny --fps 1 --questions 10
    malmm bench video long.mp4 --model tiny --form malmm --calls 20
    """
    from malmm_cli import bench as benches
    from malmm_cli.bench import tables

    unknown = [name for name in form or () if name not in _FORMS]
    if unknown:
        raise UsageError(f"unknown form {unknown[0]!r}", hint=known_names(unknown[0], _FORMS))
    runs, rows, table = _runs(options, videos, compare), [], tables.video_table()
    forms = [name for name in _FORMS if name in (form or _FORMS)]
    for row in benches.videos(runs, forms):
        rows.append(row)
        if "skipped" in row:
            note(f"{row['video']}: {row['form']} not measured: {row['skipped']}")
        elif not options.json:
            emit(tables.video_row(table, row))
    asked = list(benches.questions(runs[0], questions)) if questions else []
    called = list(benches.calls(runs[0], calls)) if calls else []
    _finish(options, {"videos": rows, "questions": asked, "calls": called}, benches.machine())


def _finish(
    options: RunOptions, found: dict[str, list[dict[str, Any]]], machine: dict[str, Any]
) -> None:
    """Print all of it as JSON, or what comes below the table of videos."""
    from malmm_cli.bench import tables

    if options.json:
        emit(json_format.dumps({**found, "machine": machine}, indent=2) + "\n")
        return
    for name, table in (("questions", tables.questions_table()), ("calls", tables.calls_table())):
        for row in found[name]:
            emit(table.row(row))
    if called := found["calls"]:
        note(f"as many: {called[0]['measured']} runs measured, their mean times the questions")
    note_machine(machine)


@with_options("ask", only=(*_OPTIONS, "overwrite", "no_progress"))
def everything(
    videos: Videos,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.md", help="File for the page.")
    ],
    *,
    questions: _Questions = None,
    steps: Annotated[
        list[int] | None,
        typer.Option(metavar="M", min=1, rich_help_panel=PANEL, help="Bank length; repeatable."),
    ] = None,
    compare: _Compare = 120,
    options: RunOptions,
) -> None:
    """Run all benchmarks, and write a page with tables and plots.

    The plots are saved beside the page as FILE.png and FILE-growth.png. Keep the machine idle.

    \b
    malmm bench all 1min.mp4 10h.mp4 --model tiny --fps 1 -o benchmarks.md
    """
    pictures = [output.with_suffix(".png"), output.with_name(f"{output.stem}-growth.png")]
    for path in (output, *pictures):
        check_writable(path, overwrite=options.overwrite, inputs=videos)
    check_growth(options)
    from malmm_cli import bench as benches
    from malmm_cli.bench import page
    from malmm_cli.evaluate.plots import require_matplotlib

    require_matplotlib()
    runs = _runs(options, videos, compare)
    parts = _parts(runs, steps or [20, 40, 100], questions or [10, 100])
    results: dict[str, Any] = {
        "command": shlex.join(["malmm", *sys.argv[1:]]),
        "machine": benches.machine(),
        **{name: [] for name in parts},
    }
    total, done = sum(number for number, _ in parts.values()), 0
    events = Terminal.of(options)
    try:
        with events.stage("measuring", "rows"):
            for name, (number, rows) in parts.items():
                for row in rows:
                    results[name].append(row)
                    done += 1
                    events.progress("measuring", done, total, "rows")
                total += len(results[name]) - number
    finally:  # what was measured before something failed took long, too
        if done:
            page.write(results, output, pictures, missing=total - done)
    if options.json:
        emit(json_format.dumps(results, indent=2) + "\n")


def _parts(
    runs: Sequence[Run], lengths: Sequence[int], numbers: Sequence[int]
) -> dict[str, tuple[int, Iterator[dict[str, Any]]]]:
    """The rows of each part of the page, and how many they are at most."""
    from malmm_cli import bench as benches
    from malmm_cli.bench.drift import DTYPES, MARKS
    from malmm_cli.bench.growth import FRAMES

    run = runs[0]
    growing = benches.growth(run.model, memory=run.memory, device=run.device, dtype=run.dtype)
    return {
        "steps": (1 + 2 * len(lengths), benches.step(lengths)),
        "drift": (len(DTYPES) * len(MARKS), benches.drift()),
        "videos": (len(runs) * len(_FORMS), benches.videos(runs, _FORMS)),
        "growth": (2 * len(FRAMES), growing),
        "questions": (1 + 2 * len(numbers), benches.questions(run, numbers)),
    }


def _runs(options: RunOptions, videos: Sequence[str], compare: int) -> list[Run]:
    """What is measured of each video; refuses what cannot be used before anything is."""
    from malmm_cli import media
    from malmm_cli.bench import Run
    from malmm_cli.media.sampling import choose_for

    settings = options.settings("ask")
    check_loadable(options)
    for path in videos:
        choose_for(media.probe(path, settings.sampling.decoder), settings.sampling)
    return [
        Run(
            video=path,
            model=options.model,
            device=options.device,
            dtype=options.dtype,
            frames=settings.sampling.frames,
            fps=settings.sampling.fps,
            memory=settings.memory.length,
            compare=compare,
            max_new_tokens=options.max_new_tokens,
        )
        for path in videos
    ]
