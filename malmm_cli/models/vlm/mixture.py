"""Slots that gradient flows through: each is a mixture of features, by shares that are counted.

Letters: T features of P tokens, S slots, W columns of rows or of a rider.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from malmm_cli.memory.spans import Slots
from malmm_cli.models.base import Features
from malmm_cli.models.vlm.memory import Memory
from malmm_cli.settings import MemoryOptions

__all__ = ["remembered"]

# A rider with a column for each feature: merged like all others, it says how much of that feature
# a slot is made of.
_SHARES = "shares"

# Features observed at a time, which bounds how many shares are held.
_CHUNK = 16


def remembered(features: Features, widths: Mapping[str, int], options: MemoryOptions) -> Slots:
    """What a memory gives after a whole video, with gradient towards rows and riders.

    `widths` are those of rows and riders. Numbers are the memory's own; gradient takes the choice
    of what is merged as given.
    """
    number = len(features.rows)
    memory = Memory(1, options, {**widths, _SHARES: number}, number)
    for begin in range(0, number, _CHUNK):
        memory.observe(_with_shares(features, begin, begin + _CHUNK))
    slots = memory.given()
    riders = dict(slots.riders)
    shares = riders.pop(_SHARES)
    for name, rider in riders.items():
        riders[name] = _through(rider, shares, features.riders[name])
    return slots._replace(rows=_through(slots.rows, shares, features.rows), riders=riders)


def _with_shares(features: Features, begin: int, end: int) -> Features:
    """Some of the features, without gradient, each all of itself."""
    some = features.some(slice(begin, end))
    riders = {name: rider.detach() for name, rider in some.riders.items()}
    own = torch.eye(len(features.rows), device=some.rows.device)[begin:end]
    riders[_SHARES] = own[:, None].expand(-1, some.rows.shape[1], -1)
    return Features(some.rows.detach(), some.seconds, riders)


def _through(held: Tensor, shares: Tensor, made: Tensor) -> Tensor:
    """What is held (S, P, W), with the gradient of its shares (S, P, T) of what was made (T, P, W).

    Only the gradient comes from the mixture, whose sums are rounded in another order.
    """
    if not made.requires_grad:
        return held
    mixed = torch.einsum("spt,tpw->spw", shares, made.to(shares.dtype))
    return held + (mixed - mixed.detach())
