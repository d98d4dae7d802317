"""The results as a table, CSV or TSV: made from the lines whenever a run ends."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

from malmm_cli.batch.lines import item_of, read_lines, write_whole
from malmm_cli.batch.state import State
from malmm_cli.files.jsonl import encoded
from malmm_cli.formats import COLUMNS, Item, format_whole, rows

__all__ = ["is_ours", "write"]


def write(table: Path, results: Path, state: State, *, replace: bool) -> None:
    """Write the table of all results, whole or not at all; nothing without results.

    Without `replace`, raises OutputError for a file that is there by now.
    """
    data = _content(table, results)
    if data is not None and not (table.exists() and table.read_bytes() == data):
        claim = [_claim(table, data)]
        state.claim(claim)  # a run that is killed now leaves one of the two
        write_whole(table, [data], replace=replace)
        state.settle(claim)


def is_ours(table: Path, results: Path, claimed: set[tuple[str, str]]) -> bool:
    """Whether a file is a table that malmm wrote; `claimed` are the files that it did write."""
    data = table.read_bytes()
    return _claim(table, data) in claimed or data == _content(table, results)


def _content(table: Path, results: Path) -> bytes | None:
    items = list(_items(results))
    if not items:
        return None
    if table.suffix.lower() == ".csv":
        text = io.StringIO(newline="")
        csv.writer(text).writerows([COLUMNS, *(row for item in items for row in rows(item))])
        return encoded(text.getvalue())
    return encoded(format_whole(items, "tsv", several=True))


def _items(results: Path) -> Iterator[Item]:
    lines = read_lines(results).kept.values()
    if not lines:
        return
    with results.open("rb") as file:
        for line in lines:
            file.seek(line.start)
            yield item_of(file.read(line.stop - line.start))


def _claim(table: Path, data: bytes) -> tuple[str, str]:
    """Name and digest as the state has them."""
    return encoded(table.name).decode(), hashlib.sha256(data).hexdigest()
