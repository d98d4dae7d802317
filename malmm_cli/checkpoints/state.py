"""Weight files of a model folder → state dict, each fault as a one-line error.

Only safetensors are read: a pickle can run code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError, safe_open
from torch import Tensor

from malmm_cli.checkpoints.layout import read_header, remedy, shards
from malmm_cli.errors import ModelError, first_line

__all__ = [
    "check",
    "fill",
    "read_state",
    "subset",
    "write_state",
    "wrong_shapes",
]

_SAME_MODEL = "config.json and the .safetensors files must come from the same model"


def read_state(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder by name, mapped from disk: one file, or shards with an index."""
    state: dict[str, Tensor] = {}
    for name in shards(folder):
        read_header(folder / name)  # raises a readable error
        try:
            with safe_open(folder / name, framework="pt") as file:
                mine = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{folder / name}: cannot be read: {first_line(error)}", hint=remedy(folder)
            ) from error
        if twice := sorted(state.keys() & mine.keys()):
            raise ModelError(
                f"{folder / name}: {twice[0]} appears in more than one weights file",
                hint=remedy(folder),
            )
        state |= mine
    return state


def write_state(folder: Path, state: dict[str, Tensor], *, max_shard_size: str = "5GB") -> None:
    """Write state as published: one file, or shards of at most that size with an index.

    Raises OSError where that fails, as with a full disk.
    """
    name = "model{suffix}.safetensors"
    whole = dict(_apart(state))
    try:
        save_torch_state_dict(whole, folder, filename_pattern=name, max_shard_size=max_shard_size)
    except SafetensorError as error:
        match = re.search(r"I/O error: (.*) \(os error", str(error))
        raise OSError(match[1] if match else first_line(error)) from error
    for path in folder.glob("model*.safetensors"):
        path.chmod(folder.stat().st_mode & 0o666)  # they come as their owner's alone


def _apart(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Copy tensors that share storage, since only one of them would be written."""
    known = set()
    for name, value in state.items():
        value = value.detach().contiguous()
        numbers = value.untyped_storage()
        if numbers.data_ptr() in known or numbers.nbytes() != value.nbytes:
            value = value.clone()
        known.add(numbers.data_ptr())
        yield name, value


def subset(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix.`, under the rest of their names."""
    return {
        name.removeprefix(prefix + "."): value
        for name, value in state.items()
        if name.startswith(prefix + ".")
    }


def check(
    missing: Iterable[str],
    unexpected: Iterable[str],
    wrong: Iterable[str],
    where: str,
    *,
    hint: str = _SAME_MODEL,
    most: int = 3,
) -> None:
    """Raise one ModelError that names missing and unexpected tensors and wrong shapes.

    At most three shapes are listed, and `most` names of the other kinds.
    """
    faults = [
        f"{what} {_some(sorted(names), number)}"
        for what, names, number in (
            ("missing", list(missing), most),
            ("unexpected", list(unexpected), most),
            ("wrong shape:", list(wrong), 3),
        )
        if names
    ]
    if faults:
        raise ModelError(
            f"{where}: weights do not match the configuration: {'; '.join(faults)}", hint=hint
        )


def wrong_shapes(state: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> list[str]:
    """Describe each tensor with an unexpected shape."""
    return [
        f"{name} is {tuple(value.shape)}, not {tuple(expected[name])}"
        for name, value in state.items()
        if value.shape != expected.get(name, value.shape)
    ]


@torch.no_grad()
def fill(parameters: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    """Copy state into parameters, name for name and shape for shape; ModelError otherwise."""
    wrong = wrong_shapes(state, {name: value.shape for name, value in parameters.items()})
    check(parameters.keys() - state.keys(), state.keys() - parameters.keys(), wrong, where)
    for name, parameter in parameters.items():
        parameter.copy_(state[name])


def _some(names: list[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
