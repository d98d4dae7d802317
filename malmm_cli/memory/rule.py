"""What a full bank does with one entry too many: which two become one, and what they become.

Letters: B banks side by side, P positions of one frame, C their width, T entries in time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    *("FILLS", "MEANS", "MERGES", "POLICIES"),
    *("Rule", "at_least_float32", "similarity", "take"),
]

POLICIES = ("mbc", "fifo", "random", "uniform", "ward")
MEANS = ("weighted", "plain")
MERGES = ("token", "frame")
FILLS = ("mean", "keep")

GUARDED = 4  # newest entries that "ward" does not merge: recent frames are asked about most

_PRIME = 2**31 - 1  # products of two numbers below it fit in int64


@dataclass(frozen=True)
class Rule:
    """How a bank is kept at its length (MA-LMM, section 3.2, and what to compare it with).

    `policy` chooses the entry that goes:

    - "mbc" merges the two neighbours in time that are most alike by cosine similarity; the first
      maximum wins.
    - "ward" merges the two whose merge adds the least variance (Ward, 1963): dissimilarity times
      a·b/(a+b) of the frames that they stand for, so that entries of many frames are merged last.
      The newest four entries stay as they are.
    - "random" merges two neighbours at random. What is drawn depends only on `seed`, the number of
      frames and the position, so that it is the same on every machine.
    - "uniform" keeps the frames that begin evenly spaced parts of the video, and takes no mean: a
      frame between them goes, and the one before it stands for it too. Of `total` frames, of which
      the last one never joins the bank but is read beside it, a bank of M ends with those that
      round(linspace(0, total - 1, M + 1)) names. Where `total` is not known, the pair that stands
      for the fewest frames becomes one, which spaces them evenly to about a factor of two.
    - "fifo" drops the oldest entry.

    `merge` "token" chooses at each position on its own, as the authors' code does; "frame" chooses
    once for all positions, by their mean similarity. `mean` "weighted" weighs each of the two by
    the frames it stands for, as the authors' code does; "plain" takes the plain mean of the two,
    as the paper prints it. `fill` "keep" takes no mean: the one that stands for more frames stays,
    the earlier of two that stand for as many, so that every entry is one frame's.

    `compared` is how many of an entry's columns are compared, from the first; None for all.

    Counts, the frames that each entry stands for, add up to the frames seen under every policy but
    "fifo", and the entries partition them. With a weighted mean, sums of counts x entries never
    change under "mbc", "ward" and "random".
    """

    policy: str = "mbc"
    mean: str = "weighted"
    merge: str = "token"
    seed: int = 0
    total: int | None = None
    fill: str = "mean"
    compared: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown name."""
        for what, name, known in (
            ("policy", self.policy, POLICIES),
            ("mean", self.mean, MEANS),
            ("merge", self.merge, MERGES),
            ("fill", self.fill, FILLS),
        ):
            if name not in known:
                raise ValueError(f"unknown {what} {name!r}: one of {', '.join(known)}")

    @property
    def compares(self) -> bool:
        """Whether the similarity of neighbours decides."""
        return self.policy in ("mbc", "ward")

    @property
    def drops(self) -> bool:
        """Whether the oldest entry is dropped instead of two being merged."""
        return self.policy == "fifo"

    @property
    def keeps_first(self) -> bool:
        """Whether what becomes of two is the first of them."""
        return self.policy == "uniform"

    def compress(
        self, bank: Tensor, counts: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Make T entries T - 1: bank (B, T, P, C) and counts (B, T, P), in order of time.

        `mask` (B, P) bool has the positions that count where one choice holds for all.
        """
        if self.drops:
            return bank[:, 1:], counts[:, 1:]
        if self.compares:
            left = self.chosen(self.similarity(bank[:, :-1], bank[:, 1:]), counts, mask)
        else:
            left = self.pair(counts)
        left = left[:, None]  # (B, 1, P)
        ranks = torch.arange(bank.shape[1] - 1, device=bank.device)[None, :, None]
        kept = ranks + (ranks > left)  # (B, T-1, P): everything but the right one of each pair
        count, other = counts.gather(1, left), counts.gather(1, left + 1)
        merged, _ = self.merged(take(bank, left), count, take(bank, left + 1), other)
        here = ranks == left
        return (
            torch.where(here[..., None], merged, take(bank, kept)),
            torch.where(here, count + other, counts.gather(1, kept)),
        )

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """Cosine similarity (...) of entries a and b (..., C), by what is compared of them."""
        return similarity(a[..., : self.compared], b[..., : self.compared])

    def chosen(self, similarities: Tensor, counts: Tensor, mask: Tensor | None = None) -> Tensor:
        """The rank (B, P) of the left one of the neighbours to merge, at each position or for all.

        `similarities` (B, R, P) are those of rank and next rank, `counts` (B, R + 1, P) the frames
        that each stands for.
        """
        scores = similarities
        if self.policy == "ward":
            one, other = counts[:, :-1], counts[:, 1:]
            scores = (similarities - 1) * (one * other / (one + other))
        if self.merge == "frame":
            if mask is not None:
                scores = scores.where(mask[:, None], 0.0)
            # as many positions count at every rank, so that sums are in the order of means
            scores = scores.sum(dim=-1, keepdim=True)
        if self.policy == "ward":
            scores = scores[:, : max(scores.shape[1] - GUARDED, 1)]
        return scores.argmax(dim=1).expand(-1, similarities.shape[-1])

    def pair(self, counts: Tensor) -> Tensor:
        """The rank (B, P) of the left one of two neighbours, chosen by counts (B, T, P) alone."""
        entries, positions = counts.shape[1:]
        if self.policy == "random":
            chosen = counts if self.merge == "token" else counts[..., :1]
            left = _drawn(self.seed, chosen.sum(dim=1).long()) * (entries - 1) // _PRIME
        else:  # counts are the same at all positions
            first = counts[..., :1].long()
            if self.total is None:
                left = (first[:, 1:] + first[:, :-1]).argmin(dim=1)
            else:
                left = self._before_spare(first)
        return left.expand(-1, positions)

    def merged(self, a: Tensor, count: Tensor, b: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """What neighbours a and b (..., C) become, and the share (...) that b has in it.

        count and other (...) are the frames that a and b stand for.
        """
        if self.keeps_first:
            count, other = torch.ones_like(count), torch.zeros_like(other)
        elif self.fill == "keep":
            count, other = (count >= other).to(a.dtype), (count < other).to(a.dtype)
        elif self.mean == "plain":
            count, other = torch.ones_like(count), torch.ones_like(other)
        total = count + other
        rows = (a * count[..., None] + b * other[..., None]) / total[..., None]
        return rows.to(a.dtype), other / total

    def _before_spare(self, counts: Tensor) -> Tensor:
        """The rank (B, 1) before the first entry that does not begin an even part of the video.

        counts (B, T, 1) int64.
        """
        assert self.total is not None
        length = counts.shape[1] - 1
        # integers only: rounds half to even as Python and NumPy do, on every device
        twice = torch.arange(length + 1, device=counts.device) * (2 * (self.total - 1))
        below, rest = twice // (2 * length), twice % (2 * length)
        begins = below + (rest + below % 2 > length)
        first = counts.cumsum(dim=1) - counts
        spare = (first != begins).all(dim=-1, keepdim=True)
        return spare[:, 1:].int().argmax(dim=1)


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarity over the last dimension, normalised before the dot product.

    The order of operations is the reference's, because exact ties are decided by it.
    """
    return F.cosine_similarity(at_least_float32(a), at_least_float32(b), dim=-1)


def take(bank: Tensor, ranks: Tensor) -> Tensor:
    """Entries (B, R, P, C) of bank (B, T, P, C) at ranks (B, R, P)."""
    return bank.gather(1, ranks[..., None].expand(*ranks.shape, bank.shape[-1]))


def at_least_float32(x: Tensor) -> Tensor:
    """The same in float32, or in a longer number type that it has."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _drawn(seed: int, frames: Tensor) -> Tensor:
    """Numbers (B, P) from 0 to 2^31 - 2 for a seed, frames (B, P) int64 seen, and the position.

    Two random polynomials modulo a prime (Carter and Wegman's universal hashing), one after the
    other: integers alone, on the device, so that a captured step draws anew at every frame.
    """
    number = frames
    for shift, polynomial in enumerate(_polynomials(seed)):
        if shift:
            number = number + torch.arange(frames.shape[-1], device=frames.device)
        number, at = torch.zeros_like(number), number % _PRIME
        for coefficient in polynomial:
            number = (number * at + coefficient) % _PRIME
    return number


@cache
def _polynomials(seed: int) -> tuple[tuple[int, ...], ...]:
    """Four coefficients of each of two polynomials, from an integer of any size."""
    drawn = hashlib.sha256(str(seed).encode()).digest()
    numbers = [int.from_bytes(drawn[k : k + 4], "little") % _PRIME for k in range(0, 32, 4)]
    return tuple(numbers[:4]), tuple(numbers[4:])
