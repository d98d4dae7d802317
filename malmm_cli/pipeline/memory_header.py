"""What a memory file says of itself, read without torch: whether it is one, and of which model.

The header of a safetensors file is its length in 8 bytes, little-endian, and then JSON.
"""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from msgspec import Struct

from malmm_cli.errors import MediaError, UsageError
from malmm_cli.files.schema import checked
from malmm_cli.settings import BANK_POLICIES, Sampling, Settings

__all__ = [
    *("FORMAT", "MOST_SLOTS", "SAMPLING", "VERSIONS"),
    *("check", "check_version", "damaged", "is_memory_file", "model_of"),
]

KIND = "malmm-memory/"
FORMAT = f"{KIND}2"
# What each version calls the seconds, their number type, and the fingerprint of the weights.
VERSIONS = {f"{KIND}1": ("times", "F32", "sight"), FORMAT: ("seconds", "F64", "reader")}
LONGEST_HEADER = 2**20  # bytes
MOST_SLOTS = 10_000

# What the file decides of settings when it is asked.
SAMPLING = (*(field.name for field in fields(Sampling)), "memory", "policy")

REBUILD = "rebuild it: malmm remember VIDEO -o FILE"


class _Metadata(Struct):
    format: str
    about: str


class _Header(Struct, rename={"metadata": "__metadata__"}):
    metadata: _Metadata


class _About(Struct):
    model: str


def is_memory_file(path: str | Path) -> bool:
    """Whether a file says that it is a memory file, of whatever version; it may be damaged."""
    if not os.path.isfile(path):
        return False
    try:
        return f'"{KIND}'.encode() in _header(path)
    except (OSError, ValueError):
        return False


def model_of(path: str | Path) -> str:
    """The name of the model that a memory file was made with, or the path of its folder.

    Raises MediaError of kind OtherVersion or BrokenMemory.
    """
    try:
        metadata = checked(json.loads(_header(path)), _Header).metadata
        check_version(path, metadata.format)
        return checked(json.loads(metadata.about), _About).model
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, error) from error


def check(settings: Settings) -> None:
    """Raise UsageError for settings that keep nothing, or more slots than a file may hold."""
    length, policy = settings.memory.length, settings.memory.policy
    if policy not in BANK_POLICIES:
        raise UsageError(f"--policy {policy} keeps no memory", hint="use --policy mbc or fifo")
    if not 0 < length < MOST_SLOTS:
        raise UsageError(f"--memory {length}: a file holds 1 to {MOST_SLOTS - 1} slots")


def check_version(path: str | Path, version: str) -> None:
    """Raise MediaError for a version that cannot be read."""
    if version not in VERSIONS:
        raise MediaError(
            f"{path}: is a memory file of version {version.removeprefix(KIND)}; "
            f"up to version {FORMAT.removeprefix(KIND)} can be read",
            hint=REBUILD,
            kind="OtherVersion",
        )


def damaged(path: str | Path, error: Any) -> MediaError:
    """The error for a file whose content makes no sense."""
    return MediaError(
        f"{path}: is a damaged memory file: {error}", hint=REBUILD, kind="BrokenMemory"
    )


def _header(path: str | Path) -> bytes:
    """The JSON of the header; raises OSError, or ValueError for one that is too long."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LONGEST_HEADER:
            raise ValueError("its header is too long")
        return file.read(length)
