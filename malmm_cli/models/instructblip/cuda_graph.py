"""The step of a full memory as one captured CUDA graph.

Once its banks are full, a step runs the same kernels on the same places at every frame. There are
hundreds of them, too small to keep a GPU busy while they are launched one by one; captured, they
are launched at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from malmm_cli.memory.bank import MemoryBank
from malmm_cli.models.instructblip.memory import Memory

__all__ = ["Graph", "replayed"]

Step = Callable[[Tensor, Memory], None]

# With more prompts, kernels are large enough to hide their launches; with fewer frames left, a
# capture takes longer than it saves. Where the borders lie was not measured.
MOST_PROMPTS = 8
FEWEST_FRAMES = 50


def replayed(step: Step, feature: Tensor, memory: Memory) -> bool:
    """Do step(feature, memory) by a graph where that pays; False where it is still to be done.

    feature (V, P, C) has its position.
    """
    if memory.replay:
        memory.replay(feature)
        return True
    return memory.replay is None and _pays(feature, memory) and _capture(step, feature, memory)


class Graph:
    """A step of one memory, captured; nothing is done yet."""

    def __init__(self, step: Step, feature: Tensor, memory: Memory) -> None:
        self._feature = feature.clone()
        self._graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(feature.device),  # what is captured is the work of the current one
            # the thread that encodes goes on meanwhile
            torch.cuda.graph(self._graph, capture_error_mode="thread_local"),
        ):
            step(self._feature, memory)

    def __call__(self, feature: Tensor) -> None:
        """Do the step with another feature of the same shape."""
        self._feature.copy_(feature)
        self._graph.replay()


def _pays(feature: Tensor, memory: Memory) -> bool:
    if feature.device.type != "cuda" or not memory.is_full:
        return False
    left = float("inf") if memory.total is None else memory.total - memory.frames
    return 0 < len(memory.hidden) <= MOST_PROMPTS and left >= FEWEST_FRAMES


def _capture(step: Step, feature: Tensor, memory: Memory) -> bool:
    """Do the step, and let memory replay it from now on; False if the graph does otherwise.

    It is tried on a copy first, with two features: one that does nothing, or always the same,
    shows.
    """
    try:
        expected, trial = memory.copy(), memory.copy()
        for value in (feature, -feature):
            step(value, expected)
        graph = Graph(step, feature, trial)
        for value in (feature, -feature):
            graph(value)
        if _alike(trial, expected):
            _put_back(trial, memory)
            memory.visual, memory.queries, memory.replay = trial.visual, trial.queries, graph
            graph(feature)
            return True
    except RuntimeError:  # an older driver, too little room, or what cannot be captured
        pass
    memory.replay = False
    return False


def _put_back(trial: Memory, memory: Memory) -> None:
    """Let trial hold what memory does, in the places where it has it."""
    for bank, other in zip(_full(trial), _full(memory), strict=True):
        names = ("rows", "counts", "order", "similarity")
        tensors = [*(getattr(bank, name) for name in names), *bank.projections]
        values = [*(getattr(other, name) for name in names), *other.projections]
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)


def _alike(memory: Memory, expected: Memory) -> bool:
    """Whether two memories hold the same, up to rounding."""
    return all(
        torch.allclose(mine, theirs, rtol=1e-2, atol=1e-2)
        for mine, theirs in zip(_held(memory), _held(expected), strict=True)
    )


def _held(memory: Memory) -> list[Tensor]:
    return [tensor for bank in _full(memory) for tensor in bank.in_time()]


def _full(memory: Memory) -> list[MemoryBank]:
    return [bank for bank in memory.banks_in_use if isinstance(bank, MemoryBank)]
