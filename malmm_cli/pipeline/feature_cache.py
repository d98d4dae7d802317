"""A cache of frame features on disk, so that a video is encoded once for many runs.

    FOLDER/KEY/000000.safetensors  rows (T, P, C) float16, seconds (T, 2) float64,
                                   and riders.NAME (T, P, W) float16
    FOLDER/KEY/000001.safetensors  the next ones, in order of time
    FOLDER/KEY/about.json          what they are; without it there is no entry

KEY stands for a file, an encoder and the chosen times. An entry is made under another name and gets
its own when it is whole; several processes may use one folder at once. Entries are listed and
removed without torch; `feature_files` reads and writes what they hold.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct, structs

from malmm_cli.files.atomic import PREFIX
from malmm_cli.files.schema import checked
from malmm_cli.files.strict_json import load

if TYPE_CHECKING:
    from malmm_cli.models.base import Features, Spec

__all__ = ["ABOUT", "DamagedError", "Entry", "FeatureCache", "Metadata", "entry_in"]

FORMAT = "malmm-features/2"
LIMIT = 20 * 10**9  # bytes of a cache by default
ABOUT = "about.json"
FORGOTTEN = 24 * 3600.0  # seconds after which an unfinished one counts as abandoned


_Count = Annotated[int, Meta(gt=0)]


class Metadata(Struct, tag_field="format", tag=FORMAT, forbid_unknown_fields=True):
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
        from malmm_cli.pipeline.feature_files import number_in  # and torch

        frames = sum(number_in(path, spec) for path in self._files())
        if frames != self.frames:
            raise DamagedError(f"{self.path}: {frames} frames, not {self.frames}")

    def chunks(self) -> Iterator[Features]:
        """Features in float16, file after file; raises DamagedError."""
        from malmm_cli.pipeline.feature_files import read_features  # and torch

        yield from map(read_features, self._files())

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
        entry = entry_in(self.folder / key)
        if entry is not None:
            with suppress(OSError):
                os.utime(entry.path / ABOUT)
        return entry

    def entries(self) -> list[Entry]:
        """All entries, the one used last first."""
        whole = (path for path in self.folder.glob("*") if not path.name.startswith(PREFIX))
        found = filter(None, map(entry_in, whole))
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


def _is_ours(path: Path) -> bool:
    """Whether a folder has a name that we give to entries, whole or in the making."""
    named = path.name.startswith(PREFIX) or re.fullmatch(r"[0-9a-f]{32}", path.name)
    return bool(named) and path.is_dir() and not path.is_symlink()


def entry_in(path: Path) -> Entry | None:
    """The entry in a folder; None without one, or if its metadata are not valid."""
    try:
        metadata = path / ABOUT
        if path.is_symlink() or not metadata.is_file():  # nothing outside is read, or removed
            return None
        content = structs.asdict(checked(load(metadata.read_bytes()), Metadata))
        return Entry(path=path, used=metadata.stat().st_mtime, **content)
    except (OSError, ValueError):
        return None
