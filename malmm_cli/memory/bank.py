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
from torch.nn import functional as F

__all__ = [
    "Bank",
    "MemoryBank",
    "PlainBank",
    "Project",
    "merge_most_similar",
]

Project = Callable[[Tensor], list[Tensor]]


def merge_most_similar(bank: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Merge, at each position on its own, the two neighbours in time that are most alike.

    bank (B, T, P, C) and counts (B, T, P), the frames each entry stands for, become
    (B, T-1, P, C) and (B, T-1, P). The first maximum of the cosine similarity wins; the two are
    replaced by their count-weighted mean and their counts add, so that the sums of counts and of
    counts x entries never change. (The paper prints a plain mean; the authors' code weights.)
    """
    left = _similarity(bank[:, :-1], bank[:, 1:]).argmax(dim=1, keepdim=True)  # (B, 1, P)
    ranks = torch.arange(bank.shape[1] - 1, device=bank.device)[None, :, None]
    kept = ranks + (ranks > left)  # (B, T-1, P): everything but the right one of each pair
    merged, total = _weighted_mean(
        _take(bank, left), counts.gather(1, left), _take(bank, left + 1), counts.gather(1, left + 1)
    )
    here = ranks == left
    return (
        torch.where(here[..., None], merged, _take(bank, kept)),
        torch.where(here, total, counts.gather(1, kept)),
    )


@dataclass
class PlainBank:
    """Stored inputs in time order, projected again at every step.

    `entries` (B, T, P, C) and `counts` (B, T, P); None while empty. What the bank itself stores
    has no gradient.
    """

    length: int
    policy: str = "mbc"
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
        self.newcomer = _at_least_float32(rows.detach())
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
        if self.policy == "fifo":
            self.entries, self.counts = self.entries[:, 1:], self.counts[:, 1:]
        else:
            self.entries, self.counts = merge_most_similar(self.entries, self.counts)


@dataclass
class MemoryBank:
    """Entries in fixed slots, with their projections; a step writes two slots per position.

    `rows` (B, S, P, C) float32 and `counts` (B, S, P) lie in slots. `order` (B, S, P) names the
    slot of each rank in time: the first `used` ranks are held, the next one is where the newcomer
    goes. `similarity` (B, S, P) is that of each rank with the one before it, -inf at rank 0.
    `projections` are (B, S, P, D) each, in slots. All stay where they are in the device's memory:
    a captured step writes to the same places at every frame.
    """

    length: int
    policy: str = "mbc"
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
        row = _at_least_float32(newcomer)
        if not self.rows.numel():
            self._allocate(row, projected)
        slot = self.order[:, self.used]
        for bank, value in zip(self.projections, projected, strict=True):
            _write(bank, slot, value)
        _write(self.rows, slot, row)
        self.counts.scatter_(1, slot[:, None], 1.0)
        if self.used and self.policy == "mbc":
            before = _read(self.rows, self.order[:, self.used - 1])
            self.similarity[:, self.used] = _similarity(before, row)
        return [bank[:, : self.used + 1].flatten(1, 2) for bank in self.projections]

    def append(self, project: Project) -> None:
        """Store the last newcomer; a full bank merges or drops one entry per position."""
        if self.used < self.length:
            self.used += 1
            return
        if self.policy == "fifo":
            self._drop(torch.zeros_like(self.order[:, 0]))
            return
        right = self.similarity.argmax(dim=1)  # (B, P), at least 1: rank 0 has nothing before it
        left = right - 1
        into, out = _at(self.order, left), _at(self.order, right)
        weight, merged = self._merge(into, out, project)
        self.counts.scatter_(1, into[:, None], weight[:, None])
        self._drop(right)
        before = _read(self.rows, _at(self.order, (left - 1).clamp(min=0)))
        after = _read(self.rows, _at(self.order, right))
        with_before = _similarity(before, merged).masked_fill(left == 0, -torch.inf)
        self.similarity.scatter_(1, left[:, None], with_before[:, None])
        # where nothing comes after, this is the newcomer's place and is written when it comes
        self.similarity.scatter_(1, right[:, None], _similarity(merged, after)[:, None])

    @property
    def is_empty(self) -> bool:
        """Whether the bank has no entries yet."""
        return self.used == 0

    def in_time(self) -> tuple[Tensor, Tensor]:
        """The entries (B, used, P, C) and counts (B, used, P) in order of time, copied."""
        held = self.order[:, : self.used]
        return _take(self.rows, held), self.counts.gather(1, held)

    def plain(self) -> PlainBank:
        """The same memory in the plain form."""
        if not self.used:
            return PlainBank(self.length, self.policy)
        return PlainBank(self.length, self.policy, *self.in_time())

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
        merged, total = _weighted_mean(_read(self.rows, into), count, _read(self.rows, out), other)
        _write(self.rows, into, merged)
        share = (other / total)[..., None]
        if all(bank.dtype == merged.dtype for bank in self.projections):
            for bank in self.projections:
                _write(bank, into, torch.lerp(_read(bank, into), _read(bank, out), share))
        else:  # in half precision, repeated merges would accumulate rounding errors
            fresh = project(merged.to(self.projections[0].dtype))
            for bank, value in zip(self.projections, fresh, strict=True):
                _write(bank, into, value)
        return total, merged

    def _drop(self, rank: Tensor) -> None:
        """Take rank (B, P) out of the order; its slot becomes the free one, at the end."""
        ranks = torch.arange(self.order.shape[1], device=rank.device)[None, :, None]
        source = ranks + (ranks >= rank[:, None])
        source[:, -1] = rank
        self.order.copy_(self.order.gather(1, source))
        self.similarity.copy_(self.similarity.gather(1, source))


Bank = MemoryBank | PlainBank


def _similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity over the last dimension, normalised before the dot product.

    The order of operations is the reference's, because exact ties are decided by it.
    """
    return F.cosine_similarity(_at_least_float32(a), _at_least_float32(b), dim=-1)


def _weighted_mean(a: Tensor, count: Tensor, b: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    total = count + other
    merged = (a * count[..., None] + b * other[..., None]) / total[..., None]
    return merged.to(a.dtype), total


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _ones(rows: Tensor) -> Tensor:
    return torch.ones(rows.shape[:3], dtype=torch.float32, device=rows.device)


def _take(bank: Tensor, ranks: Tensor) -> Tensor:
    """Entries (B, R, P, C) of bank (B, T, P, C) at ranks (B, R, P)."""
    return bank.gather(1, ranks[..., None].expand(*ranks.shape, bank.shape[-1]))


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
