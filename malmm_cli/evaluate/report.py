"""Scores as text: lines, and the table of an ablation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from malmm_cli.evaluate.naming import main_options

__all__ = ["head", "interval", "lines", "percent", "seconds_text", "table"]

Row = tuple[str, str, str, str, str]
Rows = list[Row]

# Scores that are printed times 100, as papers do, but are not percentages.
METRICS = {"cider": "CIDEr", "meteor": "METEOR", "bleu4": "BLEU-4", "rouge_l": "ROUGE-L"}


def head(provenance: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    """What to cite with the scores: the model, its revision, malmm's version, options."""
    revision = f", revision {provenance['revision']}" if provenance["revision"] else ""
    first = f"{provenance['model']}{revision}, {provenance['dtype']}, malmm {provenance['malmm']}\n"
    kinds = [kind for kind in ("questions", "captions") if scores[kind]["count"]]
    return first + "".join(f"{kind}: {main_options(provenance[kind])}\n" for kind in kinds) + "\n"


def lines(
    scores: Mapping[str, Any],
    paper: Mapping[str, Any] | None = None,
    blind: Mapping[str, Any] | None = None,
) -> str:
    """All scores, a line each: name, score, interval, n, blind guess; a paper's at the end."""
    age, guess = scores["age"], blind or scores
    rows: Rows = [("", "score", "95 % interval", "n", "blind guess")]
    if scores["questions"]["count"]:
        rows += [_row("questions", scores["questions"], guess["questions"])]
    rows += _captions(scores["captions"])
    if scores["kinds"]:
        rows += [_title("kind")]
        for kind, rate in scores["kinds"].items():
            rows += [_row(f"  {kind}", rate, guess["kinds"].get(kind))]
    if age["steps"]:
        newer, older = f"newer than {age['slots']} frames", f"{age['slots']} frames or older"
        rows += [_title("evidence"), _row(f"  {newer}", age["newer"], guess["age"]["newer"])]
        rows += [_row(f"  {older}", age["older"], guess["age"]["older"])]
        for name, unit in (
            ("steps", "frames old"),
            ("seconds", "s old"),
            ("quarters", "of the video ago"),
        ):
            rows += _bins(age[name], guess["age"][name], unit, "{:g}".format)
    if scores["length"]:
        bins = _bins(scores["length"], guess["length"], "long", seconds_text)
        rows += [_title("video"), *bins]
    if scores["failed"]:
        rows += [("failed", "", "", f"{scores['failed']} of {scores['tasks']}", "")]
    if paper:
        rows += [_title(paper["source"])]
        for name, value in paper["results"].items():
            unit = "" if name in METRICS.values() else " %"
            rows += [(f"  {name}", f"{value:.1f}{unit}", "", "", "")]
    unscored = scores["captions"].get("meteor_unscored")
    text = table(rows if blind else [row[:-1] for row in rows])
    return text + (f"METEOR is not computed: {unscored}\n" if unscored else "")


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
    return (name, "", "", "", "")


def _row(name: str, rate: Mapping[str, Any], guess: Mapping[str, Any] | None = None) -> Row:
    return (
        name,
        percent(rate),
        interval(rate),
        str(rate["count"]),
        percent(guess) if guess else "",
    )


def _bins(
    bins: Sequence[Mapping[str, Any]], guesses: Sequence[Mapping[str, Any]], unit: str, text: Any
) -> Rows:
    def name(low: float, high: float | None) -> str:
        return f"over {text(low)}" if high is None else f"{text(low)} to {text(high)}"

    return [
        _row(f"  {name(found['from'], found['to'])} {unit}", found, guess)
        for found, guess in zip(bins, guesses, strict=True)
    ]


def _captions(captions: Mapping[str, Any]) -> Rows:
    if not captions["count"]:
        return []
    rows = [_row("captions", captions)]
    for key, name in METRICS.items():
        if key in captions:
            known = captions[key] is not None
            score = f"{100 * captions[key]:.1f}" if known else "–"
            count = str(captions["count"]) if known else ""
            rows += [(f"  {name}", score, _range(captions.get(f"{key}_interval")), count, "")]
    return rows
