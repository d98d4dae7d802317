"""One step of the memory Q-Former at true sizes, compared with other implementations.

`slots` is the form that is used; `naive` projects the whole bank again at every frame; `none` is
transformers' Q-Former, which has no memory.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from malmm_cli.bench.child import in_child, peak_mib
from malmm_cli.models import registry

__all__ = ["measure_step", "step"]


def step(lengths: Sequence[int], *, threads: int = 2, repeats: int = 9) -> Iterator[dict[str, Any]]:
    """Rows of seconds per frame and peak memory: without a memory first, then for each length."""
    how = {"threads": threads, "repeats": repeats}
    yield in_child("step", form="none", length=0, **how)
    for length in lengths:
        for form in ("slots", "naive"):
            yield in_child("step", form=form, length=length, **how)


def measure_step(form: str, length: int, *, threads: int, repeats: int) -> dict[str, Any]:
    """Median seconds per frame with a full bank, in this process, and its peak memory in MiB.

    `ratio` is to transformers' step, the two timed in turn, pair by pair, so that it holds when the
    machine's speed drifts.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    forms = registry.module(registry.REFERENCE, "forms")
    run = forms.transformers_step() if form == "none" else forms.step(form, length)
    frames = forms.CHUNK if form == "slots" else 1
    run()
    peak = peak_mib()
    other = forms.transformers_step()
    other()
    pairs = [(_seconds(run) / frames, _seconds(other)) for _ in range(repeats)]
    spent = [ours for ours, _ in pairs]
    return {
        "form": form,
        "memory": length,
        "seconds": round(statistics.median(spent), 4),
        "fastest": round(min(spent), 4),
        "slowest": round(max(spent), 4),
        "ratio": round(statistics.median(ours / theirs for ours, theirs in pairs), 2),
        "peak_mib": peak,
    }


def _seconds(run: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
