"""Rounding in a memory bank after many steps, compared with exact means.

An entry is the mean of frames that follow each other, however it was merged, so what it should be
is known from the frames alone, in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from malmm_cli.memory.bank import MemoryBank

__all__ = ["DTYPES", "MARKS", "drift"]

DTYPES = ("float32", "bfloat16", "float16")
MARKS = (100, 300, 1000, 3000, 10_000)

_POSITIONS, _WIDTH = 32, 64


def drift(
    dtypes: Sequence[str] = DTYPES, marks: Sequence[int] = MARKS, *, length: int = 20
) -> Iterator[dict[str, Any]]:
    """Rows of root-mean-square errors after each number of steps, relative to the exact values.

    `entries` are the bank's means, `keys` their projections in the bank; `once` is the error of
    projecting exact means in that dtype, once: rounding that no bank can be without.
    """
    for dtype in dtypes:
        for mark in sorted(marks):
            yield _errors(getattr(torch, dtype), mark, length)


@torch.no_grad()
def _errors(dtype: torch.dtype, steps: int, length: int) -> dict[str, Any]:
    chance = torch.Generator().manual_seed(0)
    walk = torch.randn(steps, _POSITIONS, _WIDTH, generator=chance).cumsum(0)
    frames = (walk / walk.square().mean((1, 2), keepdim=True).sqrt()).to(dtype)
    weight = torch.randn(_WIDTH, _WIDTH, generator=chance).to(dtype) / _WIDTH**0.5

    def project(rows: Tensor) -> list[Tensor]:
        return [rows.to(dtype) @ weight.T]

    bank = MemoryBank(length)
    for frame in frames:
        bank.read(frame[None], project)
        bank.append(project)
    entries, counts = (x[0] for x in bank.in_time())
    held = bank.order[0, : bank.used, :, None].expand(-1, -1, _WIDTH)
    keys = bank.projections[0][0].gather(0, held)
    ends = counts.long().cumsum(0)
    sums = torch.cat([torch.zeros(1, *frames.shape[1:]).double(), frames.double().cumsum(0)])
    edges = [x[..., None].expand(-1, -1, _WIDTH) for x in (ends, ends - counts.long())]
    means = (sums.gather(0, edges[0]) - sums.gather(0, edges[1])) / counts[..., None].double()
    exact = means @ weight.double().T
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "steps": steps,
        "entries": _error(entries, means),
        "keys": _error(keys, exact),
        "once": _error(project(means)[0], exact),
    }


def _error(found: Tensor, expected: Tensor) -> float:
    return float(f"{((found.double() - expected).norm() / expected.norm()).item():.2g}")
