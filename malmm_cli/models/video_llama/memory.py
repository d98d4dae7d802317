"""The memory of one video: a bank of per-frame tokens, and another one of what was heard.

Letters: T features of P tokens, C their width, S slots, n tokens for the language model.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor

from malmm_cli.memory.bank import MemoryBank
from malmm_cli.memory.rule import Rule, at_least_float32
from malmm_cli.memory.spans import Slots, feature_seconds, spans
from malmm_cli.models.base import Features
from malmm_cli.settings import MemoryOptions

__all__ = ["Memory", "Track"]


@dataclass
class Track:
    """A bank, and the newest feature beside it.

    `total` counts the features to come, if that is known; `seen` those observed or skipped.
    `apart` holds outputs (n, C) of features that were read one by one.
    """

    options: MemoryOptions
    total: int | None = None
    seen: int = 0
    newest: Tensor | None = None
    bank: MemoryBank | None = None
    apart: list[Tensor] = field(default_factory=list, repr=False)
    seconds: list[Tensor] = field(default_factory=list, repr=False)

    @property
    def reads_apart(self) -> bool:
        """Whether each feature is read by itself, without a place in time."""
        return self.options.gives_every_frame or self.options.policy == "average"

    def observe(self, features: Features) -> None:
        """Take in features; the newest is held back until the next one comes."""
        self.seconds.append(features.seconds)
        for row in at_least_float32(features.rows):
            if self.newest is not None and self.options.keeps_visual:
                self._store(self.newest)
            self.newest = row.clone()
            self.seen += 1

    def keep(self, outputs: Tensor) -> None:
        """Keep outputs (T, n, C) of features read one by one: all of them, or their sum."""
        if self.options.gives_every_frame:
            self.apart += outputs
        else:
            for output in outputs.float():  # one by one, in whatever pieces they come
                self.apart = [self.apart[0] + output] if self.apart else [output]

    def given(self) -> Tensor:
        """What was kept of features read one by one, (n, C) in all."""
        if self.options.gives_every_frame:
            return torch.cat(self.apart)
        return self.apart[0] / sum(map(len, self.seconds))

    def slots(self) -> Slots:
        """What the bank holds, and the newest feature."""
        assert self.newest is not None, "nothing was observed"
        rows = self.newest[None].clone()
        counts = torch.ones(rows.shape[:2], device=rows.device)
        if self.bank is not None and not self.bank.is_empty:
            held, held_counts = self.bank.in_time()
            rows = torch.cat([held[0], rows])
            counts = torch.cat([held_counts[0], counts])
        counts = counts.long()
        return Slots(rows, counts, spans(counts, torch.cat(self.seconds)))

    def shown(self) -> Tensor:
        """When what is given was shown, (S,) float64: of each slot the middle of its time.

        Where features are read one by one, of each feature; of their mean, that of all together.
        """
        seconds = torch.cat(self.seconds).mean(dim=1)
        if self.options.gives_every_frame:
            return seconds
        if self.options.policy == "average":
            return seconds[[0, -1]].mean(dim=0, keepdim=True)
        # a slot's positions may have been merged differently
        return self.slots().seconds.mean(dim=-1).median(dim=1).values.cpu()

    def hold(self, slots: Slots, features: int) -> None:
        """Hold the slots of a memory that was kept of so many features, and go on after them."""
        rows = at_least_float32(slots.rows)
        for row in rows[:-1] if self.options.keeps_visual else ():
            self._store(row)
        if self.bank is not None:
            self.bank.counts[0, : self.bank.used] = slots.counts[:-1].to(self.bank.counts)
        self.newest, self.seen = rows[-1].clone(), features
        self.seconds = [feature_seconds(slots, features)]

    def _store(self, row: Tensor) -> None:
        if self.bank is None:
            how = self.options
            rule = Rule(how.policy, how.mean, how.merge, how.seed, self.total)
            self.bank = MemoryBank(how.length, rule)
        self.bank.read(row[None], _nothing)
        self.bank.append(_nothing)


@dataclass
class Memory:
    """What is remembered of one video, whatever is asked about it: pictures, and sound if any.

    `prompts` only counts how many contexts are read at once.
    """

    prompts: int
    pictures: Track
    sound: Track | None = None

    @property
    def frames(self) -> int:
        """Features observed or skipped."""
        return self.pictures.seen

    def slots(self) -> Slots:
        """What the visual bank holds, and the newest feature."""
        return self.pictures.slots()

    def copy(self) -> Memory:
        """An independent copy, tensors included."""
        return copy.deepcopy(self)


def _nothing(rows: Tensor) -> list[Tensor]:
    """Nothing is projected: the Q-Former reads the rows themselves."""
    return []
