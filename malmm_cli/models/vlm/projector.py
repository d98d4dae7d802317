"""The projector on its own: what goes into it, and what it makes of that.

Letters: T features of P tokens, C width of a row, D levels beside the rows, U columns that go into
the projector for a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from malmm_cli.models.vlm.adapter import Adapter

__all__ = ["columns", "keep_exact", "project", "unprojected"]


def columns(adapter: Adapter) -> int:
    """U: what goes into the projector for a token, and for its levels."""
    return int(adapter.config.vision_config.hidden_size) * adapter.joined * (1 + adapter.levels)


@torch.no_grad()
def unprojected(adapter: Adapter, net: Any, pixels: Tensor) -> Tensor:
    """What goes into the projector (T, P, U) for normalised frames (T k, 3, H, W)."""
    parts = adapter.projectors(net)
    with _listening(parts) as heard:
        features = len(adapter.encode(net, pixels))
    width = columns(adapter) // len(parts)
    return torch.cat([part.reshape(features, -1, width) for part in heard], dim=-1)


def project(adapter: Adapter, net: Any, given: Tensor) -> Tensor:
    """Rows (T, P, C (1 + D)) that the projector makes of `unprojected` ones, with gradient."""
    parts = adapter.projectors(net)
    chunks = given.chunk(len(parts), dim=-1)
    made = [
        part(chunk.reshape(-1, adapter.projected_width))
        for part, chunk in zip(parts, chunks, strict=True)
    ]
    return torch.cat([one.view(*given.shape[:2], -1) for one in made], dim=-1)


def keep_exact(adapter: Adapter, net: Any) -> None:
    """Let the projector take numbers of any type: while it learns, its own are float32."""
    for part in adapter.projectors(net):
        part.register_forward_pre_hook(_as_its_own)


def _as_its_own(part: Any, given: tuple[Tensor]) -> tuple[Tensor]:
    (rows,) = given
    return (rows.to(next(part.parameters()).dtype),)


@contextmanager
def _listening(parts: list[Any]) -> Iterator[list[Tensor]]:
    """What each part is given inside."""
    heard: list[Tensor] = [torch.empty(0)] * len(parts)

    def listener(index: int) -> Any:
        def hear(part: Any, given: tuple[Tensor]) -> None:
            heard[index] = given[0]

        return hear

    handles = [
        part.register_forward_pre_hook(listener(index), prepend=True)
        for index, part in enumerate(parts)
    ]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()
