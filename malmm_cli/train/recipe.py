"""Hyperparameters of training, and the learning rate schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass

from malmm_cli.errors import UsageError

__all__ = ["POSITION_GRADIENTS", "Recipe"]

POSITION_GRADIENTS = ("all", "last")

# The reference's: where its warm-up begins, and AdamW's decay rates.
FIRST_RATE = 1e-8
BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class Recipe:
    """How to learn; the defaults are the paper's for questions (MA-LMM, run_scripts).

    A step learns from `batch_size` x `accumulate` samples in each process, of which up to
    `together` of one video come side by side and share its visual bank. Training lasts `steps`, or
    `epochs` where that is None. The rate rises to `lr` over `warmup` steps (None: 1000, but at most
    a tenth of all) and falls to 0 along a cosine. `clip` limits the norm of the gradient.
    `positions` is the length of the table that a model without one gets; see
    `InstructBlip.remember_for_training` for `position_gradient`.
    """

    steps: int | None = None
    epochs: int = 5
    batch_size: int = 32
    accumulate: int = 1
    together: int = 1
    lr: float = 1e-4
    warmup: int | None = None
    weight_decay: float = 0.05
    clip: float | None = None
    positions: int = 120
    position_gradient: str = "all"
    seed: int = 42

    def check(self) -> None:
        """Raise UsageError for a value that makes no sense."""
        for name, number, least in (
            ("steps", self.steps, 1),
            ("epochs", self.epochs, 1),
            ("batch-size", self.batch_size, 1),
            ("accumulate", self.accumulate, 1),
            ("together", self.together, 1),
            ("warmup", self.warmup, 0),
            ("positions", self.positions, 0),
            ("seed", self.seed, 0),
        ):
            if number is not None and number < least:
                raise UsageError(f"--{name} {number}: must be at least {least}")
        if not 0 < self.lr <= 1:
            raise UsageError(f"--lr {self.lr:g}: must be above 0 and at most 1")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise UsageError(f"--clip {self.clip:g}: must be a number above 0")
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"--weight-decay {self.weight_decay:g}: must be 0 or more")
        if self.position_gradient not in POSITION_GRADIENTS:
            raise UsageError(
                f"unknown position gradient {self.position_gradient!r}",
                hint=f"one of {', '.join(POSITION_GRADIENTS)}",
            )

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0, of `steps` in all."""
        warmup = min(1000, steps // 10) if self.warmup is None else self.warmup
        if step < warmup:
            return FIRST_RATE + (self.lr - FIRST_RATE) * step / warmup
        done = (step - warmup) / max(steps - warmup, 1)
        return self.lr * 0.5 * (1 + math.cos(math.pi * done))
