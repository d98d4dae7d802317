"""The table of an ablation: what is changed by M, with mean and spread over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from malmm_cli.evaluate.report import percent, table

__all__ = ["as_table", "cells"]

Result = Mapping[str, Any]

# score of a cell → where the scores of a row have it
SCORES = {
    "questions": ("questions",),
    "newer": ("age", "newer"),
    "older": ("age", "older"),
    "captions": ("captions",),
}


def cells(results: Iterable[Result]) -> list[dict[str, Any]]:
    """The rows of `ablate` by their place in the table, with each score's mean and spread, 0 … 1.

    The spread is the standard deviation of a sample, divided by n - 1; None for a single row.
    """
    places: dict[tuple[str, int | None], list[Result]] = {}
    for result in results:
        places.setdefault((result["line"], result["column"]), []).append(result)
    found = []
    for (line, column), rows in places.items():
        about = {"line": line, "column": column, "how": rows[0]["how"]}
        names = [row["name"] for row in rows]
        spreads = {name: _spread([_rate(row, name)["exact"] for row in rows]) for name in SCORES}
        found.append({**about, "rows": names, **spreads})
    return found


def as_table(results: Sequence[Result], blind: Result | None = None) -> str:
    """The right answers in percent: a block for each score, a line for each change, a column for M.

    `blind` are the scores of the blind guess. n is that of the first row.
    """
    found = cells(results)
    slots = results[0]["scores"]["age"]["slots"]
    titles = {
        "questions": "questions",
        "older": f"evidence {slots} frames or older",
        "captions": "captions",
    }
    counts = {name: _rate(results[0], name)["count"] for name in titles}
    blocks = [
        f"{title}, % correct, n = {counts[name]}{_within(results, name)}\n"
        + _block(found, name, blind)
        for name, title in titles.items()
        if counts[name]
    ]
    return "\n".join([*blocks, *_notes(results, found)])


def _block(found: Sequence[Result], name: str, blind: Result | None) -> str:
    """The lines of one score."""
    guess = _rate({"scores": blind}, name) if blind else None
    known = {cell["column"] for cell in found} | ({None} if guess else set())
    columns = sorted(known, key=lambda column: column or 0)
    heads = ["any M" if column is None else f"M = {column}" for column in columns]
    lines = {cell["line"]: [""] * len(columns) for cell in found}
    for cell in found:
        lines[cell["line"]][columns.index(cell["column"])] = _text(cell[name])
    rows = [["", *heads], *([line, *values] for line, values in lines.items())]
    if guess and guess["count"]:
        share = percent(guess).removesuffix(" %")
        rows.append(["blind guess", *(share if column is None else "" for column in columns)])
    return table(rows)


def _notes(results: Sequence[Result], found: Sequence[Result]) -> list[str]:
    """What a reader must know of the cells."""
    notes = []
    if any(len(cell["rows"]) > 1 for cell in found):
        notes.append("mean±standard deviation of several seeds or models, one run each\n")
    failed = sum(result["scores"]["failed"] for result in results)
    if failed:
        notes.append(f"failed and left out: {failed} answers, in all rows together\n")
    return notes


def _within(results: Sequence[Result], name: str) -> str:
    """How far the 95 % interval of a single run is from its middle, at most."""
    intervals = [_rate(result, name)["interval"] for result in results]
    halves = [(high - low) / 2 for low, high in filter(None, intervals)]
    return f", 95 % intervals up to ±{100 * max(halves):.1f}" if halves else ""


def _rate(result: Result, name: str) -> Mapping[str, Any]:
    """A score of a row: its share and number."""
    found: Any = result["scores"]
    for key in SCORES[name]:
        found = found[key]
    return dict(found)


def _spread(shares: Sequence[float | None]) -> dict[str, Any]:
    """Mean, standard deviation and ends of the shares that are known."""
    known = [share for share in shares if share is not None]
    return {
        "mean": mean(known) if known else None,
        "sd": stdev(known) if len(known) > 1 else None,
        "lowest": min(known, default=None),
        "highest": max(known, default=None),
    }


def _text(spread: Result) -> str:
    if spread["mean"] is None:
        return "–"
    around = "" if spread["sd"] is None else f"±{100 * spread['sd']:.1f}"
    return f"{100 * spread['mean']:.1f}{around}"
