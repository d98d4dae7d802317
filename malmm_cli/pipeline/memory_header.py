"""The metadata of a memory file, read without torch: whether it is one and whole, and its model.

The header of a safetensors file is its length in 8 bytes, little-endian, and then JSON.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from msgspec import Struct
from safetensors import SafetensorError

from malmm_cli import hub
from malmm_cli.checkpoints.layout import tensors_in
from malmm_cli.errors import MediaError, UsageError
from malmm_cli.files.schema import checked
from malmm_cli.files.strict_json import load
from malmm_cli.settings import BANK_POLICIES, Changes, Sampling, Settings

__all__ = [
    *("FORMAT", "KIND", "MOST_SLOTS", "REBUILD", "RIDER", "SAMPLING", "USUAL", "VERSIONS"),
    *("Metadata", "check", "holds_pictures", "is_gone", "is_memory_file", "is_of"),
    *("model_of", "only_maker", "other_model", "read_metadata", "sampling_of", "unfixed"),
]

SUFFIX = ".memory"
KIND = "malmm-memory/"
FORMAT = f"{KIND}3"
# What each version calls the seconds, their number type, and the fingerprint of the weights.
VERSIONS = {
    f"{KIND}1": ("times", "F32", "sight"),
    f"{KIND}2": ("seconds", "F64", "reader"),
    FORMAT: ("seconds", "F64", "reader"),
}
LONGEST_HEADER = 2**20  # bytes
MOST_SLOTS = 10_000
RIDER = "riders."  # before the name of a rider's tensor

# What the file decides of settings when it is asked.
SAMPLING = (
    *(field.name for field in fields(Sampling)),
    *("memory", "policy", "merge", "mean", "fill", "memory_seed"),
)

# What a file leaves out of its settings.
USUAL: dict[str, Any] = {"merge": "token", "mean": "weighted", "fill": "mean", "memory_seed": 0}

REBUILD = "rebuild it: malmm remember VIDEO -o FILE"


class Metadata(Struct):
    """The metadata of the safetensors format: version, claims as JSON, checksum."""

    format: str
    about: str
    crc32: str = ""


class _Header(Struct, rename={"metadata": "__metadata__"}):
    metadata: Metadata


class _About(Struct):
    model: str
    sampling: dict[str, Any]
    holds: str = "rows"


def is_memory_file(path: str | Path) -> bool:
    """Whether a file is named like a memory file or says that it is one; it may be damaged."""
    if not os.path.isfile(path):
        return False
    if os.fspath(path).lower().endswith(SUFFIX):
        return True
    try:
        return _claims(_header(path))
    except OSError:
        return False


def model_of(path: str | Path) -> str:
    """The name of the model that a memory file was made with, or the path of its folder.

    Raises MediaError of kind NotAVideo, OtherVersion or BrokenMemory.
    """
    return _about(path).model


def sampling_of(path: str | Path) -> dict[str, Any]:
    """The settings that a memory file was made with, as it says; raises what `model_of` raises."""
    return _about(path).sampling


def holds_pictures(path: str | Path) -> bool:
    """Whether a memory file holds pictures, for any model; raises what `model_of` raises."""
    return _about(path).holds == "pictures"


def only_maker(paths: Sequence[str]) -> str | None:
    """The model that made all of these, where every one is a memory file; None otherwise.

    None, too, where that model was a folder which no longer exists.
    """
    if not paths or not all(map(is_memory_file, paths)):
        return None
    try:
        made = {model_of(path) for path in paths}
    except MediaError:
        return None
    (model, *others) = made
    return None if others or is_gone(model) else model


def is_of(made: str, model: str) -> bool:
    """Whether files made with one model belong to another; its folder may have been moved."""
    moved = is_gone(made) and os.path.isdir(os.path.expanduser(model))
    return moved or hub.same_model(model, made)


def is_gone(made: str) -> bool:
    """Whether a model was a folder that no longer exists."""
    return os.path.isabs(made) and not os.path.isdir(made)


def other_model(file: str, made: str, model: str, hint: str | None = None) -> UsageError:
    """The error for a memory file and another model than its own."""
    return UsageError(
        f"{file}: was made with {made}, not with {model}",
        hint=hint or "leave out --model, or rebuild the file: malmm remember VIDEO -o FILE",
    )


def unfixed(settings: Settings) -> Changes:
    """What a memory file leaves open of settings, as changes to others."""
    values = settings.as_dict()
    values |= values.pop("decoding")
    left: Any = {name: value for name, value in values.items() if name not in SAMPLING}
    found: Changes = left
    return found


def read_metadata(path: str | Path) -> Metadata:
    """The metadata of a file that is whole: all of its tensors are there, with their checksum.

    Raises MediaError of kind NotAVideo, OtherVersion or BrokenMemory.
    """
    with checking(path):
        metadata = _metadata(path)
        if _checksum(path, metadata) != metadata.crc32:
            raise ValueError("checksum mismatch")
        return metadata


def check(settings: Settings) -> None:
    """Raise UsageError for settings that keep nothing, or more slots than a file may hold."""
    length, policy = settings.memory.length, settings.memory.policy
    if policy not in BANK_POLICIES:
        raise UsageError(f"--policy {policy} keeps no memory", hint="use --policy mbc or fifo")
    if not 0 < length < MOST_SLOTS:
        raise UsageError(f"--memory {length}: a file holds 1 to {MOST_SLOTS - 1} slots")


def _about(path: str | Path) -> _About:
    with checking(path):
        return checked(load(_metadata(path).about), _About)


@contextmanager
def checking(path: str | Path) -> Iterator[None]:
    """Raise MediaError for a file whose content is not valid."""
    try:
        yield
    except (
        *(SafetensorError, OSError, LookupError, TypeError, ValueError),
        *(OverflowError, RecursionError),
    ) as error:
        raise MediaError(
            f"{path}: is a damaged memory file: {error}", hint=REBUILD, kind="BrokenMemory"
        ) from error


def _metadata(path: str | Path) -> Metadata:
    """The metadata of a version that can be read; MediaError for others, ValueError for damage."""
    if not os.path.getsize(path):
        raise ValueError("the file is empty")
    header = _header(path)
    if _claims(header) or header.startswith(b"{"):  # what is cut off may lack the claim
        tensors_in(Path(path))
    if not _claims(header):
        hint = "make one: malmm remember VIDEO -o FILE"
        raise MediaError(f"{path}: not a memory file", hint=hint, kind="NotAVideo")
    metadata = checked(load(header), _Header).metadata
    if metadata.format not in VERSIONS:
        raise MediaError(
            f"{path}: is a memory file of version {metadata.format.removeprefix(KIND)}; "
            f"up to version {FORMAT.removeprefix(KIND)} can be read",
            hint=REBUILD,
            kind="OtherVersion",
        )
    return metadata


def _checksum(path: str | Path, metadata: Metadata) -> str:
    """CRC-32 of the claims and of all tensors, as `feature_files.checksum` has it.

    Tensors come in the order of their names, in earlier versions the riders last.
    """
    tensors = tensors_in(Path(path))
    names = sorted(tensors)
    if metadata.format != FORMAT:
        riders = [name for name in names if name.startswith(RIDER)]
        names = ["slots", "counts", VERSIONS[metadata.format][0], *riders]
    crc = zlib.crc32(metadata.about.encode())
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        first = 8 + int.from_bytes(content[:8], "little")
        for name in names:
            if name not in tensors:
                raise ValueError(f"it has no {name}")
            begin, end = tensors[name].data_offsets
            with memoryview(content) as view:
                crc = zlib.crc32(view[first + begin : first + end], crc)
    return str(crc)


def _claims(header: bytes) -> bool:
    return f'"{KIND}'.encode() in header


def _header(path: str | Path) -> bytes:
    """The JSON of the header, empty where it is too long for one of ours; raises OSError."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return file.read(length) if length <= LONGEST_HEADER else b""
