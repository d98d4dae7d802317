"""Hyperparameters of training, and the learning rate schedule."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from msgspec import Meta

from malmm_cli.errors import UsageError
from malmm_cli.files.schema import SchemaError, checked
from malmm_cli.text.words import known_names

__all__ = ["POSITION_GRADIENTS", "Recipe"]

POSITION_GRADIENTS = ("all", "last")

# The reference's: where its warm-up begins, and AdamW's decay rates.
FIRST_RATE = 1e-8
BETAS = (0.9, 0.999)

# Values of the options that only some families have, where they are not given.
_USUAL: dict[str, Any] = {"positions": 120, "position_gradient": "all"}


@dataclass(frozen=True)
class Recipe:
    """How to learn; the defaults are the paper's for questions (MA-LMM, run_scripts).

    A step learns from `batch_size` x `accumulate` samples in each process, of which up to
    `together` of one video come side by side and share its visual bank. Training lasts `steps`, or
    `epochs` where that is None. The rate rises to `lr` over `warmup` steps (None: 1000, but at most
    a tenth of all) and falls to 0 along a cosine. `clip` limits the norm of the gradient.

    Only some families of models have the rest: see `own`. `positions` is the length of the table
    that a model without one gets (None: 120); see `Trainable.training_context` for
    `position_gradient` (None: "all"). `lora` is the rank of adapters in the language model, which
    has none without it.
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
    positions: Annotated[int, Meta(ge=0)] | None = None
    position_gradient: str | None = None
    lora: Annotated[int, Meta(ge=1, le=1024)] | None = None
    seed: Annotated[int, Meta(ge=0)] = 42

    @property
    def own(self) -> dict[str, Any]:
        """The options that only some families have, by `Defaults.training`; None if not given."""
        names = ("positions", "position_gradient", "lora")
        return {name: getattr(self, name) for name in names}

    def settled(self) -> Recipe:
        """Return the same with the usual values where such options were not given."""
        usual = {name: value for name, value in _USUAL.items() if getattr(self, name) is None}
        return replace(self, **usual)

    def check(self) -> None:
        """Raise UsageError for a value that is not valid."""
        try:
            checked(asdict(self), Recipe)
        except SchemaError as error:
            option, value = error.field.replace("_", "-"), getattr(self, error.field)
            raise UsageError(f"--{option} {value}: {error.reason}") from error
        gradient = self.position_gradient
        if gradient is not None and gradient not in POSITION_GRADIENTS:
            raise UsageError(
                f"unknown position gradient {gradient!r}",
                hint=known_names(gradient, POSITION_GRADIENTS),
            )

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0, of `steps` in all."""
        warmup = min(1000, steps // 10) if self.warmup is None else self.warmup
        if step < warmup:
            return FIRST_RATE + (self.lr - FIRST_RATE) * step / warmup
        done = (step - warmup) / max(steps - warmup, 1)
        return self.lr * 0.5 * (1 + math.cos(math.pi * done))
