"""Measurements on a terminal: a table row by row, aligned and within 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from malmm_cli.bench.page import STAGES
from malmm_cli.files.escapes import on_one_line

__all__ = [
    "Table",
    "calls_table",
    "decoding_table",
    "drift_table",
    "growth_row",
    "growth_table",
    "model_table",
    "questions_table",
    "step_table",
    "video_row",
    "video_table",
]

# of each column: its key in a row, its heading, and its width
Columns = Mapping[str, tuple[str, int]]


class Table:
    """Makes the text of each row as it comes; widths are fixed, since the rows to come are unknown.

    The first column is aligned to the left, numbers to the right. A number has as many digits after
    the point as fit, at most `digits`.
    """

    def __init__(self, columns: Columns, *, digits: int = 3, gap: str = "  ") -> None:
        self._columns, self._digits, self._gap = columns, digits, gap
        self._title: str | None = None

    def row(self, row: Mapping[str, Any], title: str = "") -> str:
        """The lines of a row, below the title and the heading where the title is a new one."""
        lines = [self._line([self._cell(row.get(key), w) for key, (_, w) in self._columns.items()])]
        if title != self._title:
            lines = [title, self._line([head for head, _ in self._columns.values()]), *lines]
        self._title = title
        return "".join(f"{line}\n" for line in lines if line)

    def _line(self, cells: list[str]) -> str:
        (first, width), *rest = zip(cells, (w for _, w in self._columns.values()), strict=True)
        numbers = [cell.rjust(width) for cell, width in rest]
        return self._gap.join([first.ljust(width), *numbers]).rstrip()

    def _cell(self, value: Any, width: int) -> str:
        if not isinstance(value, float):
            return "" if value is None else str(value)
        if 0 < abs(value) < 10**-self._digits:
            return f"{value:.1e}"
        fitting = (f"{value:.{digits}f}" for digits in range(self._digits, 0, -1))
        return next((text for text in fitting if len(text) <= width), f"{value:.0f}")


def step_table() -> Table:
    """For rows of `step`."""
    columns = {"form": ("form", 5), "memory": ("memory", 6), "seconds": ("s/frame", 7)}
    return Table({**columns, "ratio": ("ratio", 5), "peak_mib": ("peak MiB", 8)})


def drift_table() -> Table:
    """For rows of `drift`."""
    errors = {name: (name, 7) for name in ("entries", "keys", "once")}
    return Table({"dtype": ("numbers", 8), "steps": ("steps", 5), **errors}, digits=0)


def decoding_table() -> Table:
    """For rows of `decoding`."""
    columns = {"reader": ("reader", 12), "frames": ("frames", 7), "seconds": ("seconds", 8)}
    costs = {"cpu": ("cpu", 8), "ratio": ("ratio", 5), "peak_mib": ("peak MiB", 8)}
    return Table({**columns, **costs, "differs": ("differs", 7)}, digits=2)


def model_table() -> Table:
    """For the row of `model`."""
    stages = {stage: (stage, 8) for stage in STAGES}
    return Table({"frames": ("frames", 7), **stages}, digits=2)


def questions_table() -> Table:
    """For rows of `questions`."""
    columns = {"form": ("form", 11), "questions": ("questions", 9)}
    before = {"before": ("before text", 11), "ratio": ("ratio", 7)}
    reading = {"reading": ("with reading", 12), "reading_ratio": ("its ratio", 9)}
    return Table({**columns, **before, **reading})


def calls_table() -> Table:
    """For rows of `calls`."""
    columns = {"questions": ("questions", 9), "together": ("one run", 9)}
    return Table({**columns, "apart": ("as many", 9), "ratio": ("ratio", 7)})


def video_table() -> Table:
    """For rows of `videos`, whose stages are below their own names."""
    stages = {stage: (stage, max(4, len(stage))) for stage in STAGES}
    ends = {"before": ("before", 6), "rate": ("rate", 5), "ratio": ("ratio", 5)}
    memory = {"peak_mib": ("MiB", 5), "peak_device_mib": ("GPU", 5)}
    return Table({"form": ("form", 12), **stages, **ends, **memory}, gap=" ")


def video_row(table: Table, row: Mapping[str, Any]) -> str:
    """The lines of a row of `videos`, below what is said of its video once."""
    title = f"{on_one_line(row['video'])}: {row['frames']} frames of {row['duration']:g} s"
    cells = {**row, **row["seconds"], "peak_device_mib": row["peak_device_mib"] or None}
    return table.row(cells, title) + "".join(f"{row['form']}: {x}\n" for x in _more(row))


def _more(row: Mapping[str, Any]) -> Iterator[str]:
    """What a row of `videos` says beside its cells."""
    if "encoder_share" in row:
        yield f"the encoder alone reaches {row['encoder_share']:.0%} of this rate"
    if "encoder_ratio" in row:
        yield f"{row['encoder_ratio']:.0%} of the rate of its encoder alone"
    if row["form"] == "malmm" and "hour" in row:
        yield f"an hour at one frame a second takes {row['hour']:.4g} min before text"
    if "first" in row:
        other = f", {row['first_ratio']:.3g} times malmm's" if "first_ratio" in row else ""
        yield f"first token after {row['first']:.4g} s{other}"
    if "peak_ratio" in row:
        yield f"peak memory {row['peak_ratio']:.3g} times malmm's"


def growth_table() -> Table:
    """For rows of `growth`."""
    columns = {"memory": ("memory", 6), "frames": ("frames", 7), "tokens": ("tokens", 8)}
    peaks = {"peak_mib": ("peak MiB", 8), "peak_device_mib": ("device MiB", 10)}
    return Table({**columns, **peaks, "ratio": ("ratio", 6)})


def growth_row(table: Table, row: Mapping[str, Any]) -> str:
    """The lines of a row of `growth`; below one that failed, why."""
    cells = {
        **row,
        "memory": row["memory"] or "none",
        "peak_device_mib": row["peak_device_mib"] or None,
    }
    if not row["failed"]:
        return table.row(cells)
    why = textwrap.fill(f"fails: {row['failed']}", 80, initial_indent="  ", subsequent_indent="  ")
    return f"{table.row(cells)}{why}\n"
