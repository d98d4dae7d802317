"""The command `malmm bench`."""

from __future__ import annotations

import json as json_format
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from malmm_cli.cli.console import emit, note
from malmm_cli.cli.options import RunOptions, with_options
from malmm_cli.cli.terminal import Terminal
from malmm_cli.errors import UsageError
from malmm_cli.files.escapes import on_one_line
from malmm_cli.formats import check_writable
from malmm_cli.text.words import known_names

if TYPE_CHECKING:
    from malmm_cli.bench import Run

_OPTIONS = ("model", "frames", "fps", "memory", "device", "dtype", "json")
_FORMS = ("encoder-step", "decode", "malmm", "bound", "naive", "transformers")
_PANEL = "Benchmark"
_Videos = Annotated[list[str], typer.Argument(metavar="VIDEO", show_default=False)]
_Questions = Annotated[
    list[int] | None,
    typer.Option(
        "--questions",
        metavar="N",
        min=2,
        rich_help_panel=_PANEL,
        help="Number of questions to measure; repeatable.",
    ),
]
_Compare = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        rich_help_panel=_PANEL,
        help="Maximum number of frames for naive and transformers.",
    ),
]

app = typer.Typer(help="Benchmark this machine.", rich_markup_mode=None)


@app.callback()
def bench() -> None:
    """Benchmark this machine."""


@app.command()
def step(
    memory: Annotated[
        list[int], typer.Option(metavar="M", min=1, help="Length of the memory bank; repeatable.")
    ] = [10, 20, 40, 100],  # noqa: B006
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="Number of CPU threads.")] = 2,
    repeats: Annotated[
        int, typer.Option(metavar="N", min=1, help="Steps to time for each row.")
    ] = 9,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time a Q-Former step on the CPU.

    The model has true sizes, in float32, and its bank is full.

    Rows: `none` is transformers' Q-Former without a memory, `slots` is malmm's, and `naive`
    projects the whole bank again at every frame. Ratios are relative to `none`. Keep the machine
    idle.
    """
    from malmm_cli import bench as benches
    from malmm_cli.bench import tables

    rows, table = [], tables.step_table()
    for row in benches.step(memory, threads=threads, repeats=repeats):
        rows.append(row)
        if not json:
            emit(table.row(row))
    machine = {**benches.machine(), "threads": threads}
    if json:
        emit(json_format.dumps({"rows": rows, "machine": machine}, indent=2) + "\n")
    else:
        note(", ".join(f"{name} {value}" for name, value in machine.items()))


@app.command()
def model(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", show_default=False)],
    frames: Annotated[int, typer.Option(metavar="N", min=1, help="Number of frames.")] = 100,
    text_layers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            rich_help_panel="Model",
            help="Number of language model layers.  [default: all]",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda[:i]|mps", help="Device to run on.")
    ] = "auto",
    dtype: Annotated[
        str, typer.Option(metavar="auto|float32|bfloat16|float16", help="Compute dtype.")
    ] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run a full-size model with random weights.

    Builds it with the configuration of a published model, saves, loads and runs it.

    FOLDER keeps the weights (several GB) for the next run. Nothing is downloaded. Use few
    --text-layers to free memory for many questions; the other parts keep their size.

    \b
    malmm bench model vicuna-7b random-7b/
    """
    from malmm_cli import bench as benches
    from malmm_cli.bench import tables
    from malmm_cli.hub import KNOWN

    published = [known.name for known in KNOWN.values() if known.repository]
    if name not in published:
        raise UsageError(f"unknown model {name!r}", hint=known_names(name, published))
    row = benches.model(
        name, folder, frames=frames, device=device, dtype=dtype, text_layers=text_layers
    )
    machine = benches.machine()
    if json:
        emit(json_format.dumps({"model": name, **row, "machine": machine}, indent=2) + "\n")
        return
    stages = tables.model_table().row({**row, **row["seconds"]})
    emit(
        f"{name}, {row['parameters']:,} parameters, {row['dtype']} on {row['device']}\n"
        f"{stages}"
        f"peak memory {row['peak_mib']} MiB, on the device {row['peak_device_mib']} MiB\n"
    )
    note(", ".join(f"{key} {value}" for key, value in machine.items()))


@app.command()
def drift(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Measure rounding errors in a memory bank.

    Merges for up to 10,000 steps and shows the relative errors of entries and of their projections
    against exact means; `once` is the error of a single projection in the same dtype.
    """
    from malmm_cli import bench as benches
    from malmm_cli.bench import tables

    rows, table = [], tables.drift_table()
    for row in benches.drift():
        rows.append(row)
        if not json:
            emit(table.row(row))
    if json:
        emit(json_format.dumps(rows, indent=2) + "\n")


@app.command()
@with_options("ask", only=("frames", "fps", "json"))
def decode(videos: _Videos, *, options: RunOptions) -> None:
    """Compare the decoders with decord.

    All read the same frames, at 224 × 224.

    `cpu` is the CPU time of all cores, `ratio` that time over decord's, and `differs` the mean
    difference from PyAV's frames in levels of 255. Keep the machine idle.

    \b
    malmm bench decode lecture.mp4 --fps 1
    """
    from malmm_cli import bench as benches
    from malmm_cli.bench import tables

    rows, settings, table = [], options.settings("ask"), tables.decoding_table()
    for path in videos:
        for row in benches.decoding(path, settings):
            rows.append(row)
            if "skipped" in row:
                note(f"{path}: {row['reader']} not measured: {row['skipped']}")
            elif not options.json:
                emit(table.row(row, on_one_line(path)))
    machine = benches.machine()
    if options.json:
        emit(json_format.dumps({"rows": rows, "machine": machine}, indent=2) + "\n")
    else:
        note(", ".join(f"{name} {value}" for name, value in machine.items()))


@app.command()
@with_options("ask", only=_OPTIONS)
def video(
    videos: _Videos,
    *,
    form: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FORM",
            rich_help_panel=_PANEL,
            help="Form to measure, see above; repeatable.  [default: all]",
        ),
    ] = None,
    questions: _Questions = None,
    compare: _Compare = 120,
    options: RunOptions,
) -> None:
    """Time whole videos against several baselines.

    Each stage is timed. Forms:

    \b
    malmm: as `malmm ask` does it      encoder-step: on decoded frames
    decode: only decoding              bound: only the encoder's arithmetic
    naive: all pixels first, then one frame at a time, projecting the whole bank
    transformers: InstructBLIP-Video on the same weights, which has no memory

    `before` is the time before generation, `rate` its frames per second, `MiB` and `GPU` are peak
    memory. `ratio` is malmm's `before` over the larger of encoder-step's and decode's; for the
    baselines, their `before` over malmm's. --questions also times several questions, to the
    video and to a memory file. Keep the machine idle. For full sizes, pass --model the folder of
    `malmm bench model`.

    \b
    malmm bench video short.mp4 long.mp4 --model tiny --fps 1 --questions 10
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
    machine = benches.machine()
    if options.json:
        content = {"videos": rows, "questions": asked, "machine": machine}
        emit(json_format.dumps(content, indent=2) + "\n")
        return
    table = tables.questions_table()
    for row in asked:
        emit(table.row(row))
    note(", ".join(f"{name} {value}" for name, value in machine.items()))


@app.command("all")
@with_options("ask", only=(*_OPTIONS, "overwrite", "no_progress"))
def everything(
    videos: _Videos,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.md", help="File for the page.")
    ],
    *,
    questions: _Questions = None,
    steps: Annotated[
        list[int] | None,
        typer.Option(metavar="M", min=1, rich_help_panel=_PANEL, help="Bank length; repeatable."),
    ] = None,
    compare: _Compare = 120,
    options: RunOptions,
) -> None:
    """Run all benchmarks, and write a page with tables and a plot.

    The plot is saved beside the page as FILE.png. Keep the machine idle.

    \b
    malmm bench all 1min.mp4 10h.mp4 --model tiny --fps 1 -o benchmarks.md
    """
    for path in (output, output.with_suffix(".png")):
        check_writable(path, overwrite=options.overwrite, inputs=videos)
    from malmm_cli import bench as benches
    from malmm_cli.bench import page
    from malmm_cli.bench.drift import DTYPES, MARKS
    from malmm_cli.evaluate.plots import require_matplotlib

    require_matplotlib()
    runs = _runs(options, videos, compare)
    lengths, numbers = steps or [20, 40, 100], questions or [10, 100]
    measured = {
        "steps": benches.step(lengths),
        "drift": benches.drift(),
        "videos": benches.videos(runs, _FORMS),
        "questions": benches.questions(runs[0], numbers),
    }
    total = 1 + 2 * len(lengths) + len(DTYPES) * len(MARKS)
    total += len(runs) * len(_FORMS) + 1 + 2 * len(numbers)
    results: dict[str, Any] = {
        "command": shlex.join(["malmm", *sys.argv[1:]]),
        "machine": benches.machine(),
        **{name: [] for name in measured},
    }
    events, done = Terminal.of(options), 0
    try:
        with events.stage("measuring", "rows"):
            for name, rows in measured.items():
                for row in rows:
                    results[name].append(row)
                    done += 1
                    events.progress("measuring", done, total, "rows")
    finally:  # what was measured before something failed took long, too
        if done:
            page.write(results, output, missing=total - done)
    if options.json:
        emit(json_format.dumps(results, indent=2) + "\n")


def _runs(options: RunOptions, videos: Sequence[str], compare: int) -> list[Run]:
    """What is measured of each video; refuses what cannot be used before anything is."""
    from malmm_cli import hub, media
    from malmm_cli.bench import Run
    from malmm_cli.media.sampling import choose_for
    from malmm_cli.models.device import pick_device

    settings = options.settings("ask")
    pick_device(options.device)
    hub.describe(options.model, files=False)
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
        )
        for path in videos
    ]
