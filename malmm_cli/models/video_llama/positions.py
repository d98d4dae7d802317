"""Which row of a position table each slot of a bank has."""

from __future__ import annotations

from torch import Tensor

__all__ = ["table_rows"]


def table_rows(counts: Tensor, seen: int, *, length: int, rows: int) -> Tensor:
    """Rows (S, P) int64 of a table for slots of counts (S, P) int64, the last ones of `seen`.

    Features that fit into a bank of `length`, and into the table, have the row of their own
    number. Else a slot has that of its mean number, with all numbers spread over the table.
    """
    end = seen - counts.sum(0) + counts.cumsum(0)
    twice = 2 * (end - counts) + counts - 1  # the mean of first and last number
    if seen <= min(length, rows):
        return twice // 2
    return (twice.double() * (rows - 1) / (2 * max(seen - 1, 1))).round().long()
