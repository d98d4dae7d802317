"""A model's memory of features that tests make up, for several videos at once."""

from __future__ import annotations

from typing import Any

from torch import Tensor

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
    net.observe_rows(memory, rows)
    return net.context(memory).tokens, memory
