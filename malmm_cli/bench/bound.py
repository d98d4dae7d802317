"""A lower bound: the image encoder's arithmetic at this machine's matrix rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from malmm_cli.bench.child import wait

__all__ = ["fastest", "matrix_rate", "work_of"]


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating point operations a second of a product of large square matrices."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / fastest(lambda: a @ b, device)


def fastest(run: Callable[[], Any], device: torch.device, repeats: int = 5) -> float:
    """Seconds of the fastest of some runs, after one that does not count."""
    spent = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        run()
        wait(device)
        spent.append(time.perf_counter() - begun)
    return min(spent[1:])


def work_of(run: Callable[[], Any]) -> float:
    """Floating point operations of the matrix products of a run, which is done once."""
    plain = sdpa_kernel(SDPBackend.MATH)  # products of other kernels are not all counted
    with plain, FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())
