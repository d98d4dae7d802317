"""Memory files that say something else than they did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from malmm_cli.pipeline.feature_files import checksum


def rewrite(
    path: Path,
    tensors: dict[str, Tensor] | None = None,
    about: dict[str, Any] | None = None,
    **metadata: str,
) -> None:
    """Give a file other tensors, other claims about them, or other metadata; its checksum fits."""
    with safe_open(path, framework="pt") as file:
        known = file.metadata()
    told = json.dumps({**json.loads(known["about"]), **(about or {})})
    held = {**load_file(path), **(tensors or {})}
    crc = checksum(*(held[name] for name in sorted(held)), text=told)
    save_file(held, path, known | {"about": told, "crc32": crc, **metadata})
