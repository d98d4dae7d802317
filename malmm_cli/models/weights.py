"""Weight files of a model folder → state dict, with every fault told in one line.

Only safetensors are read: a pickle can run code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError, safe_open
from torch import Tensor

from malmm_cli.errors import ModelError

__all__ = [
    "check",
    "fill",
    "first_line",
    "read_json",
    "read_state",
    "subset",
    "write_state",
    "wrong_shapes",
]

_INDEX = "model.safetensors.index.json"
_WHOLE = "model.safetensors"


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in path; ModelError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{path.parent}: {path.name} is missing",
            hint="give a folder in the layout of a published InstructBLIP repository",
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: holds no JSON object")
    return content


def read_state(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder by name, mapped from disk: one file, or shards with an index."""
    if (folder / _INDEX).exists():
        places = read_json(folder / _INDEX).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(p, str) for p in places.values()):
            raise ModelError(f"{folder / _INDEX}: says of no tensor in which file it is")
        shards = sorted(set(places.values()))
    else:
        shards = [_WHOLE]
    missing = [name for name in shards if not (folder / name).is_file()]
    for name in shards:
        if name not in missing and not os.access(folder / name, os.R_OK):
            raise ModelError(f"{folder / name}: cannot be read: permission denied")
    if missing:
        raise ModelError(
            f"{folder}: weights are missing: {_some(missing)}",
            hint="`malmm models pull NAME` fetches them; only .safetensors files are read",
        )
    state: dict[str, Tensor] = {}
    for name in shards:
        try:
            with safe_open(folder / name, framework="pt") as file:
                state.update((key, file.get_tensor(key)) for key in file.keys())  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{folder / name}: cannot be read: {first_line(error)}",
                hint="the file is damaged or cut off: `malmm models pull NAME` fetches it again",
            ) from error
    return state


def write_state(folder: Path, state: dict[str, Tensor], *, max_shard_size: str = "5GB") -> None:
    """Write state as published: one file, or shards of at most that size with an index."""
    save_torch_state_dict(
        state, folder, filename_pattern="model{suffix}.safetensors", max_shard_size=max_shard_size
    )
    for path in folder.glob("model*.safetensors"):
        path.chmod(0o644)  # as any other file; they come as their owner's alone


def subset(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix.`, under the rest of their names."""
    return {
        name.removeprefix(prefix + "."): value
        for name, value in state.items()
        if name.startswith(prefix + ".")
    }


def check(
    missing: Iterable[str], unexpected: Iterable[str], wrong: Iterable[str], where: str
) -> None:
    """Raise one ModelError that names missing and unexpected tensors and wrong shapes."""
    faults = [
        f"{what} {_some(sorted(names))}"
        for what, names in (
            ("missing", list(missing)),
            ("unexpected", list(unexpected)),
            ("wrong shape:", list(wrong)),
        )
        if names
    ]
    if faults:
        raise ModelError(
            f"{where}: weights do not fit the configuration: {'; '.join(faults)}",
            hint="config.json and the .safetensors files must come from the same model",
        )


def wrong_shapes(state: Mapping[str, Tensor], due: Mapping[str, Tensor]) -> list[str]:
    """What is said of each tensor whose shape is not that of its namesake in due."""
    return [
        f"{name} is {tuple(value.shape)}, not {tuple(due[name].shape)}"
        for name, value in state.items()
        if name in due and value.shape != due[name].shape
    ]


@torch.no_grad()
def fill(parameters: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    """Copy state into parameters, name for name and shape for shape; ModelError otherwise."""
    wrong = wrong_shapes(state, parameters)
    check(parameters.keys() - state.keys(), state.keys() - parameters.keys(), wrong, where)
    for name, parameter in parameters.items():
        parameter.copy_(state[name])


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its kind where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _some(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
