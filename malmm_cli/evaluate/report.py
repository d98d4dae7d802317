"""Scores as text: lines, and the table of an ablation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from malmm_cli.evaluate.naming import main_options

__all__ = ["head", "interval", "lines", "percent", "seconds_text", "table"]

Row = tuple[str, str, str, str]
Rows = list[Row]

# Scores that are printed times 100, as papers do, but are not percentages.
METRICS = {"cider": "CIDEr", "meteor": "METEOR", "bleu4": "BLEU-4", "rouge_l": "ROUGE-L"}


def head(provenance: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    """What to cite with the scores: the model, its revision, malmm's version, options."""
    revision = f", revision {provenance['revision']}" if provenance["revision"] else ""
    first = f"{provenance['model']}{revision}, {provenance['dtype']}, malmm {provenance['malmm']}\n"
    kinds = [kind for kind in ("questions", "captions") if scores[kind]["count"]]
    return first + "".join(f"{kind}: {main_options(provenance[kind])}\n" for kind in kinds) + "\n"


def lines(scores: Mapping[str, Any], paper: Mapping[str, Any] | None = None) -> str:
    """All scores, a line each: name, score, interval, n; what a paper has at the end."""
    age = scores["age"]
    rows: Rows = [("", "score", "95 % interval", "n")]
    if scores["questions"]["count"]:
        rows += [_row("questions", scores["questions"])]
    rows += _captions(scores["captions"])
    if scores["kinds"]:
        rows += [_title("kind")]
        rows += [_row(f"  {kind}", rate) for kind, rate in scores["kinds"].items()]
    if age["steps"]:
        newer, older = f"newer than {age['slots']} frames", f"{age['slots']} frames or older"
        rows += [_title("evidence"), _row(f"  {newer}", age["newer"])]
        rows += [_row(f"  {older}", age["older"])]
        rows += _bins(age["steps"], "frames old", "{:g}".format)
        rows += _bins(age["seconds"], "s old", "{:g}".format)
        rows += _bins(age["quarters"], "of the video ago", "{:g}".format)
    if scores["length"]:
        rows += [_title("video"), *_bins(scores["length"], "long", seconds_text)]
    if scores["failed"]:
        rows += [("failed", "", "", f"{scores['failed']} of {scores['tasks']}")]
    if paper:
        rows += [_title(paper["source"])]
        for name, value in paper["results"].items():
            unit = "" if name in METRICS.values() else " %"
            rows += [(f"  {name}", f"{value:.1f}{unit}", "", "")]
    unscored = scores["captions"].get("meteor_unscored")
    return table(rows) + (f"METEOR is not computed: {unscored}\n" if unscored else "")


def table(rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Rows of cells in columns, the first ones to the left and the others to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [
        [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    return "".join("  ".join(cells).rstrip() + "\n" for cells in padded)


def percent(rate: Mapping[str, Any]) -> str:
    """The share that is right, with one decimal; a dash where there was nothing."""
    return "–" if rate["exact"] is None else f"{100 * rate['exact']:.1f} %"


def interval(rate: Mapping[str, Any]) -> str:
    """The interval of that share."""
    return f"{_range(rate['interval'])} %" if rate["interval"] else ""


def _range(found: Sequence[float] | None) -> str:
    return f"{100 * found[0]:.1f} to {100 * found[1]:.1f}" if found else ""


def seconds_text(seconds: float) -> str:
    """A bin's edge in words: 61 is "1 min", since edges lie a second above the round figure."""
    whole = max(seconds - 1, 0)
    return f"{whole / 60:g} min" if whole >= 60 else f"{whole:g} s"


def _title(name: str) -> Row:
    return (name, "", "", "")


def _row(name: str, rate: Mapping[str, Any]) -> Row:
    return (name, percent(rate), interval(rate), str(rate["count"]))


def _bins(bins: Sequence[Mapping[str, Any]], unit: str, text: Any) -> Rows:
    def name(low: float, high: float | None) -> str:
        return f"over {text(low)}" if high is None else f"{text(low)} to {text(high)}"

    return [_row(f"  {name(found['from'], found['to'])} {unit}", found) for found in bins]


def _captions(captions: Mapping[str, Any]) -> Rows:
    if not captions["count"]:
        return []
    rows = [_row("captions", captions)]
    for key, name in METRICS.items():
        if key in captions:
            known = captions[key] is not None
            score = f"{100 * captions[key]:.1f}" if known else "–"
            count = str(captions["count"]) if known else ""
            rows += [(f"  {name}", score, _range(captions.get(f"{key}_interval")), count)]
    return rows
