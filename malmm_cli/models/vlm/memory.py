"""The memory of one video: a bank of whole slots and the newest feature."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor

from malmm_cli.memory.bank import MemoryBank
from malmm_cli.memory.rule import Rule, at_least_float32
from malmm_cli.memory.spans import Slots, spans
from malmm_cli.models.base import Features
from malmm_cli.settings import MemoryOptions

__all__ = ["Memory"]


@dataclass
class Memory:
    """What is remembered of one video, whatever is asked about it later.

    `prompts` only counts how many contexts are read at once. Rows stand in the bank together with
    their riders, of `widths` each, side by side, in float32 or longer: they are merged alike.
    `total` counts the features to come, if that is known; `frames` those seen or skipped.
    """

    prompts: int
    options: MemoryOptions
    widths: dict[str, int]
    total: int | None = None
    frames: int = 0
    newest: Tensor | None = None
    bank: MemoryBank | None = None
    every: list[Tensor] = field(default_factory=list, repr=False)
    seconds: list[Tensor] = field(default_factory=list, repr=False)

    def observe(self, features: Features) -> None:
        """Take in features; the newest is held back until the next one comes."""
        self.seconds.append(features.seconds)
        beside = [features.riders[name] for name in list(self.widths)[1:]]
        for row in at_least_float32(torch.cat([features.rows, *beside], dim=-1)):
            if self.newest is not None:
                self._store(self.newest)
            self.newest = row.clone()
            self.frames += 1

    def slots(self) -> Slots:
        """What the bank holds, and the newest feature."""
        rows, counts = self._held() if self.options.keeps_visual else (None, None)
        return self._slots(rows, counts)

    def given(self) -> Slots:
        """What the language model is given: `slots`, every feature, or the mean of all."""
        slots = self._slots(*self._held())
        if self.options.policy != "average" or len(slots.rows) == 1:
            return slots
        share = (slots.counts / slots.counts.sum(0))[..., None]
        parts = {"rows": slots.rows, **slots.riders}
        means = {name: (part * share).sum(0, keepdim=True) for name, part in parts.items()}
        ends = torch.stack([slots.seconds[:1, :, 0], slots.seconds[-1:, :, 1]], dim=-1)
        return Slots(means.pop("rows"), slots.counts.sum(0, keepdim=True), ends, means)

    def copy(self) -> Memory:
        """An independent copy, tensors included."""
        return copy.deepcopy(self)

    def hold(self, slots: Slots, seconds: Tensor) -> None:
        """Hold the slots of a memory that was kept, and go on after them."""
        rows = torch.cat([slots.rows, *slots.riders.values()], dim=-1)
        for row in rows[:-1]:
            self._store(row)
        if self.bank is not None:
            self.bank.counts[0, : self.bank.used] = slots.counts[:-1].to(self.bank.counts)
        self.newest, self.seconds = rows[-1].clone(), [seconds]

    def _store(self, row: Tensor) -> None:
        how = self.options
        if how.gives_every_frame:
            self.every.append(row)
            return
        if how.policy == "last" or how.length == 0:
            return
        if self.bank is None:
            self.bank = self._new_bank()
        self.bank.read(row[None], _nothing)
        self.bank.append(_nothing)

    def _new_bank(self) -> MemoryBank:
        how, columns = self.options, self.widths["rows"]
        if how.policy == "average":  # one slot, into which everything is merged
            return MemoryBank(1, Rule(merge="frame"))
        rule = Rule(how.policy, how.mean, how.merge, how.seed, self.total, how.fill, columns)
        return MemoryBank(how.length, rule)

    def _held(self) -> tuple[Tensor | None, Tensor | None]:
        """Rows (S, P, *) and counts (S, P) of what is held before the newest feature."""
        if self.every:
            rows = torch.stack(self.every)
            return rows, torch.ones(rows.shape[:2], device=rows.device)
        if self.bank is None or self.bank.is_empty:
            return None, None
        held, counts = self.bank.in_time()
        return held[0], counts[0]

    def _slots(self, rows: Tensor | None, counts: Tensor | None) -> Slots:
        assert self.newest is not None, "no frame was observed"
        newest = self.newest[None]
        ones = torch.ones(newest.shape[:2], device=newest.device)
        rows = newest.clone() if rows is None else torch.cat([rows, newest])
        counts = (ones if counts is None else torch.cat([counts, ones])).long()
        columns = torch.split(rows, list(self.widths.values()), dim=-1)
        parts = dict(zip(self.widths, columns, strict=True))
        riders = {name: part for name, part in parts.items() if name != "rows"}
        return Slots(parts["rows"], counts, spans(counts, torch.cat(self.seconds)), riders)


def _nothing(rows: Tensor) -> list[Tensor]:
    """Nothing is projected: the language model reads the rows themselves."""
    return []
