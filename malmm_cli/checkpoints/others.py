"""Checkpoints of other people's training code: their tensors, and what is wrong with them.

A pickle is read with weights only: no code can run.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping, Set
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from malmm_cli.checkpoints.layout import read_header
from malmm_cli.errors import ModelError, first_line

__all__ = [
    *("ANOTHER", "NUMBERS", "Converted"),
    *("check_numbers", "check_parts", "gathered", "listed", "read_tensors"),
]

ANOTHER = "use another checkpoint, or save this one again"
NUMBERS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_SMALL = 2**24  # bytes that a tensor may have though its file is smaller: a view repeats numbers


@dataclass(frozen=True)
class Converted:
    """What became of a checkpoint.

    `taken` counts its tensors; `kept` those of the base, by the parts of the model that they are
    all of; `positions` are the rows of the position table, 0 where neither of the two has one.
    """

    taken: int
    kept: dict[str, int]
    positions: int


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth or .safetensors file, by its own names; raises ModelError."""
    content = _unpickled(path) if path.suffix != ".safetensors" else _loaded(path)
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise ModelError(
            f"{path}: has no state dict, at the top level or under 'model'",
            hint="use a .pth of the authors' training code, with {'model': {name: tensor}}",
        )
    most = max(path.stat().st_size, _SMALL)
    for name, value in state.items():
        if fault := _fault(value, most):
            raise ModelError(f"{path}: {name} {fault}", hint=ANOTHER)
    if not state:
        raise ModelError(f"{path}: contains no tensors", hint=ANOTHER)
    return {name: value.detach() for name, value in state.items()}


def _fault(value: Tensor, most: int) -> str:
    """What is wrong with a tensor of a file that holds at most so many bytes of numbers."""
    if value.is_meta:
        return "is on the meta device and has no data"
    if value.is_nested or value.layout != torch.strided:
        kind = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
        return f"is a {kind} tensor; weights must be dense"
    if value.is_quantized:
        return f"is quantized ({str(value.dtype).removeprefix('torch.')})"
    if value.nbytes > most:
        return f"has the shape {tuple(value.shape)}, which is larger than the file"
    return ""


def _loaded(path: Path) -> Any:
    read_header(path)  # tells what is wrong in words for people
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: cannot be read: {first_line(error)}", hint=ANOTHER) from error


def _unpickled(path: Path) -> Any:
    """What a .pth file holds, unpickled with weights only: no code can run."""
    try:
        mapped = zipfile.is_zipfile(path)  # what older versions of torch wrote is not
        with path.open("rb") as file:
            start = file.read(4)
        if mapped and _is_packed(path):
            raise ModelError(
                f"{path}: is a compressed archive, which torch.save does not write",
                hint="unzip it, zip it again without compression (zip -0), or save it again",
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd pickles, which fail just below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except ModelError:
        raise
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise ModelError(f"{path}: cannot be read: {reason}", hint=ANOTHER) from error
    except Exception as error:  # torch raises all kinds on files that are something else
        if isinstance(error, pickle.UnpicklingError) and (
            "GLOBAL" in str(error) or start.startswith(b"\x80")
        ):
            raise ModelError(
                f"{path}: contains more than tensors and could run code",
                hint="only files that torch.load reads with weights_only=True are supported",
            ) from error
        if not start or (start == b"PK\3\4" and not mapped):
            raise ModelError(
                f"{path}: is {'cut off or damaged' if start else 'empty'}",
                hint="copy the file again",
            ) from error
        raise ModelError(
            f"{path}: is not a checkpoint",
            hint="use a .pth or .safetensors file written by torch.save or safetensors",
        ) from error


def _is_packed(path: Path) -> bool:
    """Whether something in an archive may be larger than it is on the disk."""
    with zipfile.ZipFile(path) as archive:
        return any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist())


def check_numbers(state: Mapping[str, Tensor], where: str) -> None:
    """Raise ModelError for tensors that hold no numbers to compute with."""
    for name, value in state.items():
        if value.dtype not in NUMBERS:
            raise ModelError(
                f"{where}: {name} is {str(value.dtype).removeprefix('torch.')}",
                hint="weights must be floating point: use a checkpoint that is not quantized",
            )
    if broken := {name for name, value in state.items() if not value.float().isfinite().all()}:
        names = ", ".join(listed(gathered(broken, state.keys())))
        raise ModelError(f"{where}: NaN or infinite values in {names}", hint=ANOTHER)


def check_parts(
    laid: Mapping[str, Tensor], known: Set[str], parts: Mapping[str, str], where: str, *, hint: str
) -> None:
    """Raise ModelError for a part of the model of which laid has something, but not all.

    `parts` are called by their values; a name of those `known` belongs to the first key that it
    begins with.
    """

    def part_of(name: str) -> str:
        return next((part for part in parts if name.startswith(part)), name)

    for part in dict.fromkeys(map(part_of, laid)):
        expected = {name for name in known if part_of(name) == part}
        if missing := expected - laid.keys():
            names = ", ".join(listed(gathered(missing, known)))
            raise ModelError(
                f"{where}: the checkpoint has {len(expected - missing)} of the {len(expected)} "
                f"tensors of {parts.get(part, part)}; missing {names}",
                hint=f"a part must be complete or absent; {hint}",
            )


def listed(parts: Mapping[str, int]) -> list[str]:
    """Names of tensors and of parts, these with how many they have."""
    return [name if count == 1 else f"{name} ({count} tensors)" for name, count in parts.items()]


def gathered(names: Set[str], known: Set[str]) -> dict[str, int]:
    """How many of names lie under each name that stands for some of them and no other known one."""
    found: dict[str, list[str]] = {}
    others = {prefix for name in known - names for prefix in _prefixes(name)}
    for name in sorted(names):
        found.setdefault(next(p for p in _prefixes(name) if p not in others), []).append(name)
    return {part if len(under) > 1 else under[0]: len(under) for part, under in found.items()}


def _prefixes(name: str) -> list[str]:
    """a.b.c → a, a.b, a.b.c."""
    return list(accumulate(name.split("."), "{}.{}".format))
