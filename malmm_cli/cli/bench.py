"""`malmm bench`."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

import typer

from malmm_cli.cli.console import emit, note
from malmm_cli.errors import UsageError

app = typer.Typer(help="Measure, on this machine.", rich_markup_mode=None)


@app.callback()
def bench() -> None:
    """Measure, on this machine."""


@app.command()
def step(
    memory: Annotated[
        list[int], typer.Option(min=1, help="Bank length; may be given several times.")
    ] = [10, 20, 40, 100],  # noqa: B006
    threads: Annotated[int, typer.Option(min=1, help="Threads to compute with.")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="Steps timed for each row.")] = 9,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time one Q-Former step at true sizes, float32, on the CPU, with a full bank.

    Rows: none is transformers' Q-Former, without a memory; slots the form in use; naive projects
    the whole bank anew at every frame. Ratios are to none. Leave the machine idle meanwhile.
    """
    from malmm_cli import bench as benches

    rows = []
    for row in benches.step(memory, threads=threads, repeats=repeats):
        rows.append(row)
        if not json:
            heading = "form   memory  s/frame  ratio  peak MiB\n" if len(rows) == 1 else ""
            emit(
                f"{heading}{row['form']:5}  {row['memory']:6}  {row['seconds']:7.3f}  "
                f"{row['ratio']:5.2f}  {row['peak_mib']:8}\n"
            )
    about = {**benches.machine(), "threads": threads}
    if json:
        emit(json_format.dumps({"rows": rows, "machine": about}, indent=2) + "\n")
    else:
        note(", ".join(f"{name} {value}" for name, value in about.items()))


@app.command()
def model(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", show_default=False)],
    frames: Annotated[int, typer.Option(min=1, help="Frames to look at.")] = 100,
    device: Annotated[str, typer.Option(help="Where to compute.")] = "auto",
    dtype: Annotated[str, typer.Option(help="Numbers to compute with.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Build a published model at its true size with random weights, store, load and run it.

    FOLDER keeps the weights, gigabytes of them, and is used again. No weights are downloaded.

    \b
    malmm bench model vicuna-7b /tmp/random-7b
    """
    from malmm_cli import bench as benches
    from malmm_cli.hub import KNOWN

    published = [known.name for known in KNOWN.values() if known.repository]
    if name not in published:
        raise UsageError(f"unknown model {name!r}", hint=f"one of {', '.join(published)}")
    row = benches.model(name, folder, frames=frames, device=device, dtype=dtype)
    about = benches.machine()
    if json:
        emit(json_format.dumps({"model": name, **row, "machine": about}, indent=2) + "\n")
        return
    stages = "  ".join(f"{stage} {seconds:.2f} s" for stage, seconds in row["seconds"].items())
    emit(
        f"{name}, {row['parameters']:,} parameters, {row['dtype']} on {row['device']}\n"
        f"{row['frames']} frames: {stages}\n"
        f"peak memory {row['peak_mib']} MiB, on the device {row['peak_device_mib']} MiB\n"
    )
    note(", ".join(f"{key} {value}" for key, value in about.items()))
