"""The state of a training run on disk: trained parameters and optimizer.

    step-00000500/trained.safetensors    trained parameters, float32, under the model's own names
    step-00000500/optimizer.safetensors  what AdamW knows of each, "<what>.<parameter>"
    step-00000500/state.json             steps done, settings, the best validation so far

A folder appears under its name when all of it is on the disk; the one before is removed after.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from malmm_cli.checkpoints.layout import open_regular
from malmm_cli.checkpoints.state import fill
from malmm_cli.errors import ModelError, OutputError, first_line
from malmm_cli.files.atomic import new_folder, new_path, remove_leftovers
from malmm_cli.files.schema import checked
from malmm_cli.files.strict_json import load

__all__ = [
    *("TRAINED", "check_finite", "latest", "read_state", "read_tensors", "restore", "save"),
    *("write_whole"),
]

TRAINED = "trained.safetensors"
_LARGEST_STATE = 10**6  # bytes; it has some hundred
_OPTIMIZER, _STATE = "optimizer.safetensors", "state.json"
_DAMAGED = "the checkpoint is damaged; delete its folder to restart training"


class State(TypedDict):
    """The contents of `state.json`."""

    step: int
    settings: dict[str, Any]
    best: dict[str, float] | None
    scaler: dict[str, Any]


def latest(folder: Path) -> Path | None:
    """The newest checkpoint in a folder of them, if there is any."""
    return max(folder.glob("step-*"), default=None)


def save(
    folder: Path,
    step: int,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
) -> None:
    """Write the checkpoint of `step` into a folder of them, and then remove the others.

    Raises OutputError where that fails, as with a full disk; the others then stay.
    """
    saved = folder / f"step-{step:08}"
    if saved.exists():  # it was saved, and nothing was learnt since
        return
    known = {
        f"{what}.{name}": value
        for name, parameter in parameters.items()
        for what, value in optimizer.state.get(parameter, {}).items()
    }
    with new_folder(saved, durable=True) as new:
        write_tensors(new / TRAINED, parameters)
        write_tensors(new / _OPTIMIZER, known)
        (new / _STATE).write_text(json.dumps({"step": step, **state}), encoding="utf-8")
    for path in folder.glob("step-*"):
        if path != saved:
            shutil.rmtree(path, ignore_errors=True)
    remove_leftovers(folder)


def restore(
    saved: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    """Fill parameters and optimizer from a checkpoint; ModelError where it belongs to others."""
    fill(parameters, read_tensors(saved / TRAINED), str(saved))
    known: dict[str, dict[str, Tensor]] = {}
    for name, value in read_tensors(saved / _OPTIMIZER).items():
        what, _, owner = name.partition(".")
        known.setdefault(owner, {})[what] = value
    for name, values in known.items():
        parameter = parameters[name]
        optimizer.state[parameter] = {
            # the number of steps is a number; on a GPU too it stays where it is
            what: value.to(parameter.device) if value.dim() else value
            for what, value in values.items()
        }


def read_state(saved: Path) -> State:
    """The state of a checkpoint; ModelError if it is damaged."""
    path = saved / _STATE
    try:
        with open_regular(path, _LARGEST_STATE) as file:
            return checked(load(file.read()), State)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {first_line(error)}", hint=_DAMAGED) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to a file; OutputError where that fails, ModelError for NaN and infinities."""
    content = {name: value.detach().contiguous() for name, value in tensors.items()}
    check_finite(content)
    try:
        save_file(content, path)
    except SafetensorError as error:
        raise OutputError(
            f"{path}: cannot be written: {first_line(error)}", hint="free up disk space"
        ) from error


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise ModelError that names the first of tensors that holds NaN or an infinity."""
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise ModelError(
                f"trained values in {name} are NaN or infinite as {value.dtype}",
                hint="try a lower --lr or --clip 1; the last checkpoint is kept",
                kind="NotANumber",
            )


def write_whole(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """`write_tensors` to a file that appears under its name when all of it is on the disk."""
    with new_path(path, durable=True) as new:
        write_tensors(new, tensors)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file; ModelError where there is none or it is damaged."""
    try:
        with open_regular(path):
            return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: cannot be read: {first_line(error)}", hint=_DAMAGED) from error
