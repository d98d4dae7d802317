"""The command `malmm bench growth`."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from malmm_cli.cli.bench.common import PANEL, check_growth, check_loadable, measuring, note_machine
from malmm_cli.cli.console import emit
from malmm_cli.cli.options import RunOptions, with_options
from malmm_cli.formats import check_writable
from malmm_cli.types import SCHEMA

__all__ = ["growth"]


@with_options("ask", only=("model", "device", "dtype", "json", "overwrite"))
@measuring
def growth(
    *,
    frames: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            min=1,
            rich_help_panel=PANEL,
            help="Number of frames to measure; repeatable.  [default: 20, 40, 60, 100, 200, ...]",
        ),
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Memory bank length.  [default: that of the model]"),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", rich_help_panel=PANEL, help="PNG file for a plot."),
    ] = None,
    options: RunOptions,
) -> None:
    """Compare growth with and without a memory bank.

    Asks one question about more and more frames of noise, with the bank and with none. `tokens` are
    those of the video that the language model is given, `MiB` is peak memory, `ratio` that of the
    peak to the first row's with the same memory. Without --frames, the number grows until the form
    without a memory fails; its last row says why. Peaks vary by a few per cent.

    \b
    malmm bench growth --model tiny --plot growth.png
    malmm bench growth --model random-2b/ --frames 200 --frames 10000
    """
    settings = check_growth(replace(options, memory=memory))
    if plot is not None:
        check_writable(plot, overwrite=options.overwrite)
        from malmm_cli.evaluate.plots import require_matplotlib

        require_matplotlib()
    check_loadable(options)
    from malmm_cli import bench as benches

    measured = benches.growth(
        options.model,
        memory=settings.memory.length,
        frames=frames or (),
        device=options.device,
        dtype=options.dtype,
    )
    _finish(options, _printed(measured, options, plot), benches.machine())


def _printed(
    measured: Iterable[dict[str, Any]], options: RunOptions, plot: Path | None
) -> list[dict[str, Any]]:
    """The rows, each printed as soon as it is measured, and drawn at the end."""
    from malmm_cli.bench import plots, tables

    rows: list[dict[str, Any]] = []
    table = tables.growth_table()
    try:
        for row in measured:
            rows.append(row)
            if not options.json:
                emit(tables.growth_row(table, row))
    finally:  # what was measured before something failed took long, too
        if plot is not None and any(not row["failed"] for row in rows):
            plots.draw_growth(rows, plot)
    return rows


def _finish(options: RunOptions, rows: list[dict[str, Any]], machine: dict[str, Any]) -> None:
    """Print all of it as JSON, or below the table what it was measured on."""
    if options.json:
        content = {"schema": SCHEMA, "model": options.model, "growth": rows, "machine": machine}
        emit(json_format.dumps(content, indent=2) + "\n")
    else:
        note_machine(machine)
