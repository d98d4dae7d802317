"""`malmm bench`."""

from __future__ import annotations

import json as json_format
from typing import Annotated

import typer

from malmm_cli.cli.console import emit, note

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
