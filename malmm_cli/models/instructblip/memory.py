"""The memory of one video: its banks, its input and the newest frame."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from malmm_cli.memory.bank import Bank, MemoryBank
from malmm_cli.memory.spans import Slots, spans

__all__ = ["Memory"]


@dataclass
class Memory:
    """Everything remembered of V videos under B prompts (B / V each, side by side).

    Made by a model's `start`, changed by its `observe`; `copy()` it to go on in two ways.
    `hidden` (B, N, D) is the Q-Former's input, queries first, and `mask` (B, N) its real tokens
    (None when all are). `visual` is one bank for all cross-attention layers; `queries` one per
    self-attention layer; None where a bank is off. `frames` counts those seen, of `total` where
    that is known, at `seconds` (T, 2); `placed` ones come with their positions. `newest` (V, P, C)
    has its position and is not in the banks yet. `tokens` (B, T * n, D) are those of all frames
    where each is read apart. `begun` is what the first layer makes of its input, by
    self-attention alone, where that is the same at every frame. `warnings` has those
    about each prompt. `replay` reads one frame by what was captured of this memory's step, False
    where that was tried in vain.
    """

    length: int
    policy: str
    banks: str
    hidden: Tensor
    mask: Tensor | None
    visual: Bank | None
    queries: list[Bank | None]
    total: int | None = None
    frames: int = 0
    placed: bool = False
    newest: Tensor | None = None
    seconds: list[Tensor] = field(default_factory=list, repr=False)
    tokens: Tensor | None = None
    begun: tuple[Tensor, Tensor] | None = None
    warnings: list[tuple[str, ...]] = field(default_factory=list)
    replay: Callable[[Tensor], None] | Literal[False] | None = None

    @property
    def banks_in_use(self) -> list[Bank]:
        """The visual bank and the query banks, of those that are on."""
        return [bank for bank in (self.visual, *self.queries) if bank is not None]

    @property
    def is_full(self) -> bool:
        """Whether a step no longer lets any bank grow."""
        banks = self.banks_in_use
        return bool(banks) and all(
            isinstance(bank, MemoryBank) and bank.used == bank.length for bank in banks
        )

    @property
    def reads_apart(self) -> bool:
        """Whether each frame is read as if it were alone: no memory, or the average over frames."""
        return self.policy == "average" or (self.length == 0 and self.policy != "last")

    @property
    def keeps_nothing(self) -> bool:
        """Whether every bank is off, so that only the newest frame counts."""
        return not self.banks_in_use

    def slots(self) -> Slots:
        """What the visual bank holds of the one video, and the newest frame."""
        assert self.newest is not None, "no frame was observed"
        dtype = torch.promote_types(self.newest.dtype, torch.float32)
        rows = self.newest.to(dtype, copy=True)
        counts = torch.ones(rows.shape[:2], device=rows.device)
        if self.visual is not None and not self.visual.is_empty:
            held, weights = self.visual.in_time()
            rows, counts = torch.cat([held[0], rows]), torch.cat([weights[0], counts])
        counts = counts.long()
        return Slots(rows, counts, spans(counts, torch.cat(self.seconds)))

    def copy(self) -> Memory:
        """An independent copy, tensors included."""
        return copy.deepcopy(replace(self, replay=None))

    def plain(self) -> Memory:
        """The same memory with every bank in the plain form; shares nothing that is written to."""
        return replace(
            self,
            visual=_plain(self.visual),
            queries=[_plain(bank) for bank in self.queries],
            replay=None,
        )


def _plain(bank: Bank | None) -> Bank | None:
    return bank.plain() if isinstance(bank, MemoryBank) else copy.copy(bank)
