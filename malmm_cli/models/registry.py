"""The family of a model folder, by the `model_type` of its config.json.

Nothing is imported of a family before it is asked for, and its `defaults` need no torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from malmm_cli.settings import Defaults

if TYPE_CHECKING:
    from malmm_cli.models.base import VideoModel

__all__ = ["FAMILIES", "REFERENCE", "defaults", "having", "load", "module", "part"]

# `model_type` → the folder of its family. The published Vicuna processors name the video classes by
# mistake; weights are the same.
FAMILIES = {
    "instructblip": "instructblip",
    "instructblipvideo": "instructblip",
    "qwen3_vl": "vlm",
    "qwen3_5": "vlm",
    "smolvlm": "vlm",
    "internvl": "vlm",
    "video_llama": "video_llama",
}

# The family that MA-LMM's authors built on: their checkpoints are converted to it, and the memory's
# step is measured in it.
REFERENCE = "instructblip"

_PACKAGE = "malmm_cli.models"


def module(family: str, name: str) -> ModuleType:
    """A module of a family."""
    return import_module(f"{_PACKAGE}.{family}.{name}")


def part(folder: Path, name: str) -> ModuleType:
    """A module of the family whose weights are in a folder; ModelError for an unknown family."""
    from malmm_cli.checkpoints.layout import read_config  # not needed for help

    return module(FAMILIES[read_config(folder)["model_type"]], name)


def having(name: str) -> list[str]:
    """The `model_type`s whose family has a module of that name, which is not imported."""
    return [kind for kind, family in FAMILIES.items() if find_spec(f"{_PACKAGE}.{family}.{name}")]


def defaults(model_type: str | None = None) -> Defaults:
    """The default settings of a `model_type`'s family.

    None stands for a model of which nothing is known: it may have what the memory of any family
    has, and the settings of the first.
    """
    families = dict.fromkeys(FAMILIES.values()) if model_type is None else [FAMILIES[model_type]]
    found: list[Defaults] = [module(family, "defaults").DEFAULTS for family in families]

    def known(name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value for one in found for value in getattr(one, name)))

    return Defaults(
        found[0].tasks,
        policies=known("policies"),
        banks=known("banks"),
        merges=known("merges"),
        means=known("means"),
        fills=known("fills"),
        looks_again=any(one.looks_again for one in found),
        training=known("training"),
    )


def load(folder: str | Path, **options: Any) -> VideoModel[Any]:
    """The model in a folder of the published layout, ready to run; raises ModelError.

    Every parameter is loaded by name and shape: none missing, none left over. `options` are those
    of the family's `load`: `device`, `dtype`, and for the language model alone `quantize` ("8bit"
    or "4bit") and `spread` over all devices of the machine; the latter two need packages that malmm
    does not always bring.
    """
    model: VideoModel[Any] = part(Path(folder), "load").load(folder, **options)
    return model
