"""Hyperparameters of training, and the learning rate schedule."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Annotated

from msgspec import Meta

from malmm_cli.errors import UsageError
from malmm_cli.files.schema import SchemaError, checked
from malmm_cli.text.words import known_names

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
    `Trainable.tokens_for_training` for `position_gradient`.
    """

    steps: Annotated[int, Meta(ge=1)] | None = None
    epochs: Annotated[int, Meta(ge=1)] = 5
    batch_size: Annotated[int, Meta(ge=1)] = 32
    accumulate: Annotated[int, Meta(ge=1)] = 1
    together: Annotated[int, Meta(ge=1)] = 1
    lr: Annotated[float, Meta(gt=0, le=1)] = 1e-4
    warmup: Annotated[int, Meta(ge=0)] | None = None
    weight_decay: Annotated[float, Meta(ge=0, le=1e300)] = 0.05
    clip: Annotated[float, Meta(gt=0, le=1e300)] | None = None
    positions: Annotated[int, Meta(ge=0)] = 120
    position_gradient: str = "all"
    seed: Annotated[int, Meta(ge=0)] = 42

    def check(self) -> None:
        """Raise UsageError for a value that is not valid."""
        try:
            checked(asdict(self), Recipe)
        except SchemaError as error:
            option, value = error.field.replace("_", "-"), getattr(self, error.field)
            raise UsageError(f"--{option} {value}: {error.reason}") from error
        if self.position_gradient not in POSITION_GRADIENTS:
            raise UsageError(
                f"unknown position gradient {self.position_gradient!r}",
                hint=known_names(self.position_gradient, POSITION_GRADIENTS),
            )

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0, of `steps` in all."""
        warmup = min(1000, steps // 10) if self.warmup is None else self.warmup
        if step < warmup:
            return FIRST_RATE + (self.lr - FIRST_RATE) * step / warmup
        done = (step - warmup) / max(steps - warmup, 1)
        return self.lr * 0.5 * (1 + math.cos(math.pi * done))
