"""A model's memory of features that tests make up, for several videos at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from malmm_cli.models.base import Features
from malmm_cli.models.instructblip.memory import Memory
from malmm_cli.models.instructblip.model import InstructBlip
from malmm_cli.settings import MemoryOptions


def start(
    net: InstructBlip, prompts: list[str], *, total: int | None = None, **options: Any
) -> Memory:
    """Return an empty memory."""
    return net.start(prompts, MemoryOptions(**options), total)


def remember(net: InstructBlip, rows: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
    """Observe rows (V, T, P, C); return the tokens (B, n, D) that memory gives then, and it."""
    net.observe(memory, Features(rows, torch.zeros(rows.shape[1], 2)))
    return net.context(memory).tokens, memory
