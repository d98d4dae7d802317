"""The family of a model folder, by the `model_type` of its config.json."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from malmm_cli.checkpoints.layout import read_config
from malmm_cli.models.base import VideoModel

__all__ = ["FAMILIES", "REFERENCE", "load", "module", "part"]

# `model_type` → the folder of its family. The published Vicuna processors name the video classes by
# mistake; weights are the same.
FAMILIES = {"instructblip": "instructblip", "instructblipvideo": "instructblip"}

# The family that MA-LMM's authors built on: their checkpoints are converted to it, and the memory's
# step is measured in it.
REFERENCE = "instructblip"


def module(family: str, name: str) -> ModuleType:
    """A module of a family."""
    return import_module(f"malmm_cli.models.{family}.{name}")


def part(folder: Path, name: str) -> ModuleType:
    """A module of the family whose weights are in a folder; ModelError for an unknown family."""
    return module(FAMILIES[read_config(folder)["model_type"]], name)


def load(
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    quantize: str | None = None,
    spread: bool = False,
) -> VideoModel[Any]:
    """The model in a folder of the published layout, ready to run; raises ModelError.

    Every parameter is loaded by name and shape: none missing, none left over. The language model
    alone may be stored in fewer bits (`quantize` "8bit" or "4bit"), or be spread over all devices
    of the machine (`spread`); both need packages that malmm does not always bring.
    """
    options = {"device": device, "dtype": dtype, "quantize": quantize, "spread": spread}
    model: VideoModel[Any] = part(Path(folder), "load").load(folder, **options)
    return model
