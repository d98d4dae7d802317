"""The files of cached features: written entry by entry, checked by their headers, and read."""

from __future__ import annotations

import json
import math
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from msgspec import to_builtins
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from malmm_cli.events import Events
from malmm_cli.files.atomic import permit, rename_folder, scratch
from malmm_cli.models.base import Features, Spec
from malmm_cli.pipeline.feature_cache import ABOUT, DamagedError, FeatureCache, Metadata, entry_in

__all__ = ["Writer", "checksum", "held_in", "number_in", "read_features"]


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
        metadata = Metadata(
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
            if entry_in(target) is None:
                shutil.rmtree(target, ignore_errors=True)
            try:
                rename_folder(self._new, target)
            except OSError:
                if entry_in(target) is None:
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


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        raise DamagedError(f"{path}: {error}") from error


def number_in(path: Path, spec: Spec) -> int:
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


def read_features(path: Path) -> Features:
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
