"""Commands that measure one part: a step, a model, rounding, a decoder."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

import typer

from malmm_cli.cli.bench.common import Videos, measuring, note_machine
from malmm_cli.cli.console import emit, note
from malmm_cli.cli.options import RunOptions, with_options
from malmm_cli.errors import UsageError
from malmm_cli.files.escapes import on_one_line
from malmm_cli.text.words import known_names

__all__ = ["decode", "drift", "model", "step"]


@measuring
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
        note_machine(machine)


@measuring
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
    malmm bench model qwen3-vl-2b random-2b/ --frames 2
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
    note_machine(machine)


@measuring
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


@with_options("ask", only=("frames", "fps", "json"))
@measuring
def decode(videos: Videos, *, options: RunOptions) -> None:
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
        note_machine(machine)
