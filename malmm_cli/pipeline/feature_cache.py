"""A cache of frame features on disk, so that a video is encoded once for many runs.

    FOLDER/KEY/000000.safetensors  rows (T, P, C) float16, seconds (T, 2) float64,
                                   and riders.NAME (T, P, W) float16
    FOLDER/KEY/000001.safetensors  the next ones, in order of time
    FOLDER/KEY/about.json          what they are; without it there is no entry

KEY stands for a file, an encoder and the chosen times. An entry is made under another name and gets
its own when it is whole; several processes may use one folder at once.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta, Struct, structs, to_builtins
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from malmm_cli.events import Events
from malmm_cli.files.atomic import PREFIX, permit, rename_folder, scratch
from malmm_cli.files.schema import checked
from malmm_cli.files.strict_json import load
from malmm_cli.models.base import Features, Spec

__all__ = ["DamagedError", "Entry", "FeatureCache", "Writer", "checksum", "held_in"]

FORMAT = "malmm-features/2"
LIMIT = 20 * 10**9  # bytes of a cache by default
ABOUT = "about.json"
FORGOTTEN = 24 * 3600.0  # seconds after which an unfinished one counts as abandoned


_Count = Annotated[int, Meta(gt=0)]


class _Metadata(Struct, tag_field="format", tag=FORMAT, forbid_unknown_fields=True):
    """The fields of about.json besides the format."""

    video: str
    model: str
    frames: _Count
    files: _Count
    size: _Count
    warnings: tuple[str, ...]


class DamagedError(Exception):
    """An entry that is not what it was when it was written."""


@dataclass(frozen=True)
class Entry:
    """The contents of an entry's about.json.

    `frames` counts its features, `size` its bytes; `used` is the time of its last use.
    """

    path: Path = field(repr=False)
    video: str
    model: str
    frames: int
    files: int
    size: int
    warnings: tuple[str, ...]
    used: float

    @property
    def key(self) -> str:
        """The name of its folder."""
        return self.path.name

    def check(self, spec: Spec) -> None:
        """Raise DamagedError unless every file says that it holds what it should; reads no data."""
        frames = sum(_number(path, spec) for path in self._files())
        if frames != self.frames:
            raise DamagedError(f"{self.path}: {frames} frames, not {self.frames}")

    def chunks(self) -> Iterator[Features]:
        """Features in float16, file after file; raises DamagedError."""
        for path in self._files():
            yield _read(path)

    def _files(self) -> Iterator[Path]:
        return (self.path / f"{number:06}.safetensors" for number in range(self.files))


@dataclass(frozen=True)
class FeatureCache:
    """A folder of entries that together take at most `limit` bytes.

    `full_hash` tells files apart by all of their bytes, not by size, time of change and both ends.
    """

    folder: Path
    limit: float = LIMIT
    full_hash: bool = False

    def find(self, key: str) -> Entry | None:
        """The entry of that name, which is now the one used last; None where there is none."""
        entry = _entry(self.folder / key)
        if entry is not None:
            with suppress(OSError):
                os.utime(entry.path / ABOUT)
        return entry

    def entries(self) -> list[Entry]:
        """All entries, the one used last first."""
        whole = (path for path in self.folder.glob("*") if not path.name.startswith(PREFIX))
        found = filter(None, map(_entry, whole))
        return sorted(found, key=lambda entry: entry.used, reverse=True)

    def broken(self) -> list[Path]:
        """Folders without a usable entry: damaged, left by a stopped process, or being written."""
        whole = {entry.path for entry in self.entries()}
        ours = (path for path in self.folder.glob("*") if _is_ours(path))
        return [path for path in ours if path not in whole]

    def remove_broken(self) -> None:
        """Remove them, even those being written."""
        for path in self.broken():
            shutil.rmtree(path, ignore_errors=True)

    def remove(self, entry: Entry) -> None:
        """Remove an entry; a process that is reading it makes the features itself from there on."""
        with suppress(OSError):
            (entry.path / ABOUT).unlink()
        shutil.rmtree(entry.path, ignore_errors=True)

    def make_room(self, size: int) -> None:
        """Remove the least recently used entries until `size` more bytes fit.

        Damaged entries and those that stopped processes left behind are removed too.
        """
        entries = self.entries()
        held = sum(entry.size for entry in entries)
        while entries and held + size > self.limit:
            oldest = entries.pop()
            held -= oldest.size
            self.remove(oldest)
        for path in self.broken():
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > FORGOTTEN:
                    shutil.rmtree(path, ignore_errors=True)


class Writer:
    """Makes an entry, chunk by chunk; where that fails, `events` get a warning and work goes on."""

    def __init__(self, cache: FeatureCache, key: str, events: Events) -> None:
        self._cache, self._key, self._events = cache, key, events
        self._files = self._frames = self._size = 0
        self._stack = ExitStack()
        self._new: Path | None = None
        with self._warning():
            cache.folder.mkdir(parents=True, exist_ok=True)
            self._new = self._stack.enter_context(scratch(cache.folder / key))

    def add(self, features: Features) -> Features:
        """Keep features; return them in half precision, on the CPU.

        Numbers too large for that are returned as they are, and nothing is kept.
        """
        half = features.to("cpu", torch.float16)
        fits = all(bool(x.isfinite().all()) for x in (half.rows, *half.riders.values()))
        if self._new is not None:
            tensors = half.as_dict()
            with self._warning():
                if not fits:
                    raise OSError("values too large for half precision")
                if (
                    self._size + sum(tensor.nbytes for tensor in tensors.values())
                    > self._cache.limit
                ):
                    raise OSError(f"they take more than {self._cache.limit / 1e9:g} GB")
                path = self._new / f"{self._files:06}.safetensors"
                save_file(tensors, path, {"crc32": checksum(*tensors.values())})
                self._files += 1
                self._frames += len(half.rows)
                self._size += path.stat().st_size
        return half if fits else features

    def finish(self, video: str, model: str, warnings: list[str]) -> None:
        """Give the entry its name; an entry of that name from another process is equally good."""
        if self._new is None or not self._files:
            return
        target = self._cache.folder / self._key
        metadata = _Metadata(
            video=os.path.abspath(video),
            model=model,
            frames=self._frames,
            files=self._files,
            size=self._size,
            warnings=tuple(warnings),
        )
        with self._warning():
            (self._new / ABOUT).write_text(json.dumps(to_builtins(metadata)), encoding="utf-8")
            permit(self._new)
            if self._cache.limit < math.inf:  # it reads every entry
                self._cache.make_room(self._size)
            if _entry(target) is None:
                shutil.rmtree(target, ignore_errors=True)
            try:
                rename_folder(self._new, target)
            except OSError:
                if _entry(target) is None:
                    raise

    def close(self) -> None:
        """Leave nothing of an entry that was not finished."""
        self._stack.close()

    @contextmanager
    def _warning(self) -> Iterator[None]:
        """Give up the entry, with a warning, when the system cannot write it."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            self.close()
            self._new = None
            reason = getattr(error, "strerror", None) or error
            self._events.warn(f"{self._cache.folder}: features are not cached: {reason}")


def _is_ours(path: Path) -> bool:
    """Whether a folder has a name that we give to entries, whole or in the making."""
    named = path.name.startswith(PREFIX) or re.fullmatch(r"[0-9a-f]{32}", path.name)
    return bool(named) and path.is_dir() and not path.is_symlink()


def _entry(path: Path) -> Entry | None:
    """The entry in a folder; None without one, or if its metadata are not valid."""
    try:
        metadata = path / ABOUT
        if path.is_symlink() or not metadata.is_file():  # nothing outside is read, or removed
            return None
        content = structs.asdict(checked(load(metadata.read_bytes()), _Metadata))
        return Entry(path=path, used=metadata.stat().st_mtime, **content)
    except (OSError, ValueError):
        return None


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        raise DamagedError(f"{path}: {error}") from error


def _number(path: Path, spec: Spec) -> int:
    """The number of features that a file says it holds; DamagedError if they are not the spec's."""
    with _damaged(path), safe_open(path, framework="pt") as file:
        found = held_in(file)
        number, patches, _ = found["rows"][1]
        shapes = spec.shapes(number, patches)
    dtypes = {"seconds": "F64"}
    if found != {name: (dtypes.get(name, "F16"), shape) for name, shape in shapes.items()}:
        raise DamagedError(f"{path}: holds {found}")
    if not number:
        raise DamagedError(f"{path}: holds no features")
    return int(number)


def _read(path: Path) -> Features:
    """The features in a file whose header has been checked; DamagedError if it was changed."""
    with _damaged(path), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        known = file.metadata()["crc32"]
        features = Features.from_dict(tensors)
    if known != checksum(*tensors.values()):
        raise DamagedError(f"{path}: checksum mismatch")
    return features


def held_in(file: Any) -> dict[str, tuple[str, list[int]]]:
    """Dtype and shape of each tensor of a file, which are not read."""
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    return {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()}


def checksum(*tensors: Tensor, text: str = "") -> str:
    """CRC-32 of text and of what tensors on the CPU hold.

    It shows what a disk changed, not what a person did.
    """
    crc = zlib.crc32(text.encode())
    for tensor in tensors:
        crc = zlib.crc32(tensor.contiguous().numpy().data, crc)
    return str(crc)
