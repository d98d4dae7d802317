"""Fingerprints of a model's weights, from a sample of their numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from malmm_cli.checkpoints.layout import shards
from malmm_cli.checkpoints.preprocessor import read_pixels

__all__ = ["Fingerprints"]

# Rows that are read of each tensor, so that gigabytes are not.
HASHED_ROWS = 16


@dataclass(frozen=True)
class Fingerprints:
    """Hashes of a model folder's weights, each made when it is first asked for.

    `parts` gives, for "encoder" and "reader", how the names of their tensors begin; `heads` is the
    number of the encoder's attention heads, which no tensor tells.
    """

    folder: Path
    parts: Mapping[str, tuple[str, ...]]
    heads: int

    @cached_property
    def encoder(self) -> str:
        """Of all that features depend on, in whatever numbers they are computed."""
        return self._hash(self.parts["encoder"])

    @cached_property
    def reader(self) -> str:
        """Of all that the slots of a memory file depend on."""
        return self._hash(self.parts["reader"])

    @cached_property
    def weights(self) -> str:
        """Of everything."""
        return self._hash(("",))

    def _hash(self, prefixes: tuple[str, ...]) -> str:
        found = []
        for name in shards(self.folder):
            with safe_open(self.folder / name, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118
                    if key.startswith(prefixes):
                        part = file.get_slice(key)
                        found.append((key, part.get_shape(), _rows_hash(part)))
        pixels = read_pixels(self.folder)
        content = (sorted(found), pixels.mean, pixels.std, self.heads)
        return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def _rows_hash(part: Any) -> str:
    """A hash over some rows of a tensor, evenly spread."""
    rows, digest = (part.get_shape() or [1])[0], hashlib.sha256()
    for row in sorted({k * (rows - 1) // (HASHED_ROWS - 1) for k in range(HASHED_ROWS)}):
        digest.update(part[row : row + 1].contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
