"""The table of `malmm models`: what each model takes, how good it is, whether it fits here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from malmm_cli.cli.wrapping import fitted

__all__ = ["on_disk", "size", "table"]

_HEADER = ("  name", "download", "licence", "MLVU", "V-MME", "LVB", "fits", "on disk")
_WIDTH = 80
_FORMS = {"bfloat16": "half", "float16": "half"}


def table(rows: list[dict[str, Any]], default: str) -> str:
    """One line for each model, then what the columns mean and where the scores come from."""
    lines = [_HEADER, *(_cells(row, default) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        [cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines
    ]
    return "".join("  ".join(line).rstrip() + "\n" for line in padded) + _legend(rows, default)


def on_disk(model: Mapping[str, Any]) -> str:
    """The size of what is here, how much of it has arrived, or "no"."""
    if model["here"] or not model["arrived"]:
        return size(model["size"]) if model["here"] else "no"
    arrived, whole = size(model["arrived"]), size(model["download"])
    same = whole and arrived.split()[1] == whole.split()[1]
    return f"{arrived.split()[0] if same else arrived} of {whole}" if whole else arrived


def size(number: int | None) -> str:
    """Bytes in words; nothing where not known."""
    from malmm_cli.hub import size_text

    return size_text(number) if number else ""


def _cells(row: Mapping[str, Any], default: str) -> tuple[str, ...]:
    scores = row["scores"] or {}
    return (
        f"{'*' if row['name'] == default else ' '} {row['name']}",
        size(row["download"]),
        row["licence"].split(" (")[0],
        *("" if (score := scores.get(key)) is None else str(score) for key in _SCORES),
        _best(row["fits"]),
        _part(row) or on_disk(row),
    )


_SCORES = ("mlvu", "video_mme", "lvbench")


def _best(forms: list[str] | None) -> str:
    if forms is None:
        return ""
    return _FORMS.get(forms[0], forms[0]) if forms else "no"


def _part(row: Mapping[str, Any]) -> str:
    """How much of an interrupted download has arrived."""
    if row["here"] or not row["arrived"] or not row["download"]:
        return ""
    return f"{100 * row['arrived'] // row['download']} %"


def _legend(rows: list[dict[str, Any]], default: str) -> str:
    names = [row["name"] for row in rows]
    told: dict[str, list[str]] = {}
    for row in rows:
        if row["scores"]:
            told.setdefault(row["scores"]["source"], []).append(row["name"])
    sources = [f"{_together(those, names)}: {source}" for source, those in told.items()]
    text = (
        f"* default{'' if default in names else f': {default}'}. fits: best form for the memory "
        "that is free. Scores: MLVU M-Avg, Video-MME without subtitles, LVBench; published, "
        f"without malmm's memory. {'; '.join(sources)}."
    )
    return fitted(text, _WIDTH) + "\n"


def _together(names: Iterable[str], known: Iterable[str]) -> str:
    """Names in short: a series of which all sizes are meant, or its sizes: qwen3.5-2b|4b."""
    return ", ".join(
        start if sizes == _series(known)[start] else f"{start}-{'|'.join(sizes)}"
        for start, sizes in _series(names).items()
    )


def _series(names: Iterable[str]) -> dict[str, list[str]]:
    """Sizes by the name before them."""
    found: dict[str, list[str]] = {}
    for name in names:
        start, _, end = name.rpartition("-")
        found.setdefault(start, []).append(end)
    return found
