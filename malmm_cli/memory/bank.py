"""The memory bank of MA-LMM and its compression (CVPR 2024, section 3.2).

Two forms of one algorithm. `PlainBank` follows the paper line by line: it keeps stored inputs in
time order and projects them again at every step; training needs it, and the tests measure the
other form by it. `MemoryBank` costs one row of projections a step: keys and values are linear in
what is stored, so merging them with the same weights gives the keys and values of the merged
entry. Entries stay in the slot where they were first written, and a small index keeps their order
in time, because attention does not care about order and only compression does.

Letters: B banks side by side, P positions of one frame, C their width, T entries in time,
M bank length, S = M + 1 slots (a full bank and the newcomer), D width of a projection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from malmm_cli.memory.rule import Rule, at_least_float32, take

__all__ = [
    "Bank",
    "MemoryBank",
    "PlainBank",
    "Project",
]

Project = Callable[[Tensor], list[Tensor]]


@dataclass
class PlainBank:
    """Stored inputs in time order, projected again at every step.

    `entries` (B, T, P, C) and `counts` (B, T, P); None while empty. What the bank itself stores
    has no gradient. `mask` (B, P) bool has the positions that are no padding; None for all.
    """

    length: int
    rule: Rule = field(default_factory=Rule)
    mask: Tensor | None = None
    entries: Tensor | None = None
    counts: Tensor | None = None
    newcomer: Tensor | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the bank has no entries yet."""
        return self.entries is None

    def in_time(self) -> tuple[Tensor, Tensor]:
        """The entries (B, T, P, C) and counts (B, T, P)."""
        assert self.entries is not None
        assert self.counts is not None
        return self.entries, self.counts

    def read(self, newcomer: Tensor, project: Project) -> list[Tensor]:
        """Return the projections (B, T*P, D) of all entries and of newcomer (B, P, C).

        Gradient reaches the projection's weights through every entry, and what lies before the
        newcomer only through the newcomer. Nothing is stored until `append`.
        """
        rows = newcomer[:, None]
        everything = rows
        if self.entries is not None:
            everything = torch.cat([self.entries.to(rows.dtype), rows], dim=1)
        self.newcomer = at_least_float32(rows.detach())
        return project(everything.flatten(1, 2))

    def append(self, project: Project) -> None:
        """Store the last newcomer; a full bank merges or drops an entry."""
        assert self.newcomer is not None, "the bank is empty"
        stored, ones = self.newcomer, _ones(self.newcomer)
        if self.entries is not None and self.counts is not None:
            stored = torch.cat([self.entries.detach(), stored], dim=1)
            ones = torch.cat([self.counts, ones], dim=1)
        self.entries, self.counts, self.newcomer = stored, ones, None
        if self.entries.shape[1] <= self.length:
            return
        self.entries, self.counts = self.rule.compress(self.entries, self.counts, self.mask)


@dataclass
class MemoryBank:
    """Entries in fixed slots, with their projections; a step writes two slots per position.

    `rows` (B, S, P, C) float32 and `counts` (B, S, P) lie in slots. `order` (B, S, P) names the
    slot of each rank in time: the first `used` ranks are held, the next one is where the newcomer
    goes. `similarity` (B, S, P) is that of each rank with the one before it, -inf at rank 0.
    `projections` are (B, S, P, D) each, in slots. All stay where they are in the device's memory:
    a captured step writes to the same places at every frame. `mask` (B, P) bool has the positions
    that are no padding; None for all.
    """

    length: int
    rule: Rule = field(default_factory=Rule)
    mask: Tensor | None = field(default=None, repr=False)
    used: int = 0
    rows: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)
    counts: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)
    order: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)
    similarity: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)
    projections: list[Tensor] = field(default_factory=list, repr=False)

    def read(self, newcomer: Tensor, project: Project) -> list[Tensor]:
        """Return the projections (B, (used + 1)*P, D) of all entries and of newcomer (B, P, C).

        The newcomer is written to the free slots, which nothing else uses until `append`. The
        result is a view of the bank, in no particular order, and holds until the next call.
        """
        projected = project(newcomer)
        row = at_least_float32(newcomer)
        if not self.rows.numel():
            self._allocate(row, projected)
        slot = self.order[:, self.used]
        for bank, value in zip(self.projections, projected, strict=True):
            _write(bank, slot, value)
        _write(self.rows, slot, row)
        self.counts.scatter_(1, slot[:, None], 1.0)
        if self.used and self.rule.compares:
            before = _read(self.rows, self.order[:, self.used - 1])
            self.similarity[:, self.used] = self.rule.similarity(before, row)
        return [bank[:, : self.used + 1].flatten(1, 2) for bank in self.projections]

    def append(self, project: Project) -> None:
        """Store the last newcomer; a full bank merges or drops one entry per position."""
        if self.used < self.length:
            self.used += 1
            return
        if self.rule.drops:
            self._drop(torch.zeros_like(self.order[:, 0]))
            return
        counts = self.counts.gather(1, self.order)
        if self.rule.compares:  # rank 0 has nothing before it
            left = self.rule.chosen(self.similarity[:, 1:], counts, self.mask)  # (B, P)
        else:
            left = self.rule.pair(counts)
        right = left + 1
        into, out = _at(self.order, left), _at(self.order, right)
        weight, merged = self._merge(into, out, project)
        self.counts.scatter_(1, into[:, None], weight[:, None])
        self._drop(right)
        if not self.rule.compares:
            return
        before = _read(self.rows, _at(self.order, (left - 1).clamp(min=0)))
        after = _read(self.rows, _at(self.order, right))
        with_before = self.rule.similarity(before, merged).masked_fill(left == 0, -torch.inf)
        self.similarity.scatter_(1, left[:, None], with_before[:, None])
        # where nothing comes after, this is the newcomer's place and is written when it comes
        self.similarity.scatter_(1, right[:, None], self.rule.similarity(merged, after)[:, None])

    @property
    def is_empty(self) -> bool:
        """Whether the bank has no entries yet."""
        return self.used == 0

    def in_time(self) -> tuple[Tensor, Tensor]:
        """The entries (B, used, P, C) and counts (B, used, P) in order of time, copied."""
        held = self.order[:, : self.used]
        return take(self.rows, held), self.counts.gather(1, held)

    def plain(self) -> PlainBank:
        """The same memory in the plain form."""
        if not self.used:
            return PlainBank(self.length, self.rule, self.mask)
        return PlainBank(self.length, self.rule, self.mask, *self.in_time())

    def _allocate(self, row: Tensor, projected: list[Tensor]) -> None:
        batch, positions, _ = row.shape
        slots = (batch, self.length + 1, positions)
        self.rows = row.new_empty(*slots, row.shape[-1])
        self.counts = row.new_zeros(slots)
        self.similarity = row.new_full(slots, -torch.inf)
        ranks = torch.arange(slots[1], device=row.device)
        self.order = ranks[None, :, None].expand(slots).clone()
        self.projections = [value.new_empty(*slots, value.shape[-1]) for value in projected]

    def _merge(self, into: Tensor, out: Tensor, project: Project) -> tuple[Tensor, Tensor]:
        """Merge slot `out` (B, P) into slot `into`; return its new counts and rows."""
        count, other = _at(self.counts, into), _at(self.counts, out)
        merged, share = self.rule.merged(
            _read(self.rows, into), count, _read(self.rows, out), other
        )
        _write(self.rows, into, merged)
        if all(bank.dtype == merged.dtype for bank in self.projections):
            for bank in self.projections:
                _write(
                    bank, into, torch.lerp(_read(bank, into), _read(bank, out), share[..., None])
                )
        else:  # in half precision, repeated merges would accumulate rounding errors
            fresh = project(merged.to(self.projections[0].dtype))
            for bank, value in zip(self.projections, fresh, strict=True):
                _write(bank, into, value)
        return count + other, merged

    def _drop(self, rank: Tensor) -> None:
        """Take rank (B, P) out of the order; its slot becomes the free one, at the end."""
        ranks = torch.arange(self.order.shape[1], device=rank.device)[None, :, None]
        source = ranks + (ranks >= rank[:, None])
        source[:, -1] = rank
        self.order.copy_(self.order.gather(1, source))
        self.similarity.copy_(self.similarity.gather(1, source))


Bank = MemoryBank | PlainBank


def _ones(rows: Tensor) -> Tensor:
    return torch.ones(rows.shape[:3], dtype=torch.float32, device=rows.device)


def _at(values: Tensor, rank: Tensor) -> Tensor:
    """Values (B, P) of (B, S, P) at rank (B, P)."""
    return values.gather(1, rank[:, None])[:, 0]


def _flat(bank: Tensor, slot: Tensor) -> Tensor:
    """Row numbers (B*P,) of slot (B, P) in bank (B, S, P, D) seen as a list of rows."""
    batch, slots, positions, _ = bank.shape
    first = torch.arange(batch, device=slot.device)[:, None] * slots
    return ((first + slot) * positions + torch.arange(positions, device=slot.device)).flatten()


def _read(bank: Tensor, slot: Tensor) -> Tensor:
    """Rows (B, P, D) of bank (B, S, P, D) in slot (B, P)."""
    return bank.flatten(0, 2).index_select(0, _flat(bank, slot)).view(*slot.shape, -1)


def _write(bank: Tensor, slot: Tensor, rows: Tensor) -> None:
    """Put rows (B, P, D) into slot (B, P) of bank (B, S, P, D), in place."""
    bank.view(-1, bank.shape[-1]).index_copy_(0, _flat(bank, slot), rows.flatten(0, 1))
