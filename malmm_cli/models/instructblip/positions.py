"""MA-LMM's table of frame positions, for videos of any length."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from malmm_cli.memory.bank import PlainBank
from malmm_cli.models.instructblip.memory import Memory

__all__ = ["let_positions_learn", "position"]


def position(table: Tensor, frame: int, total: int | None) -> Tensor:
    """The embedding (C,) of a frame, counted from 0, of a table (positions, C).

    A table too short for the video is stretched over it when the number of frames is known; when it
    is not, frames beyond the table share its last row.
    """
    last = len(table) - 1
    if total is None or total <= len(table):
        return table[min(frame, last)]
    row = min(frame / (total - 1), 1.0) * last
    below = min(int(row), last - 1) if last else 0
    return torch.lerp(table[below], table[min(below + 1, last)], row - below)


def let_positions_learn(memory: Memory, table: Tensor) -> None:
    """Give the entries of a plain visual bank a gradient towards the position table.

    An entry is the mean of frames that follow one another, so the part of it that the table gave is
    a mean of rows: a difference of sums over all rows before its end and its start. Under the
    policy "uniform" it is the first of them. The rule's mean must be weighted, or nothing merged.
    """
    bank = memory.visual
    if not isinstance(bank, PlainBank) or bank.entries is None or bank.counts is None:
        return
    rows = [position(table, index, memory.total) for index in range(memory.frames)]
    sums = torch.stack([torch.zeros_like(rows[0]), *rows]).float().cumsum(0)  # (T + 1, C)
    after = bank.counts.long().flip(1).cumsum(1).flip(1)  # frames from an entry's first to now
    begin = memory.frames - after
    end = begin + (1 if bank.rule.keeps_first else bank.counts.long())
    # (V, M, P, C); the gradient of indexing would add up in no fixed order
    mean = (F.embedding(end, sums) - F.embedding(begin, sums)) / (end - begin)[..., None]
    bank.entries = bank.entries + (mean - mean.detach())
