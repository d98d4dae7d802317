"""What the frozen encoder makes of a clip, kept on disk, since it never changes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from malmm_cli.errors import MediaError, ModelError
from malmm_cli.files.atomic import new_file
from malmm_cli.pipeline.features import encode
from malmm_cli.pipeline.loading import Model
from malmm_cli.settings import Settings, changed

__all__ = ["Clip", "Features"]

DTYPE = torch.float16


@dataclass(frozen=True)
class Clip:
    """A video, or its part from `start` to `end` seconds."""

    video: str
    start: float | None = None
    end: float | None = None


class Features:
    """Features (T, P, C) float16 of clips, from `folder` or, where they are not there, encoded.

    A file holds one clip; its name stands for the video (path, size and time of change), for which
    frames were chosen, and for the encoder. Without a folder every clip is encoded each time.
    """

    def __init__(
        self,
        model: Model,
        settings: Settings,
        folder: Path | None,
        on_warning: Callable[[str], None],
    ) -> None:
        self._model = model
        self._settings = settings
        self._folder = folder
        self._on_warning = on_warning
        self._names: dict[Clip, str] = {}

    def __call__(self, clip: Hashable) -> Tensor:
        """The features of a clip, mapped from disk; encoded where they are not there or damaged."""
        assert isinstance(clip, Clip)
        if self._folder is None:
            return self._encode(clip)
        path = self._folder / f"{self._name(clip)}.safetensors"
        found = _read(path)
        if found is None:
            found = self._encode(clip)
            self._folder.mkdir(parents=True, exist_ok=True)
            with new_file(path) as file:
                file.write(save({"features": found}))
        return found

    def has(self, clip: Clip) -> bool:
        """Whether the features of a clip are on disk, whole."""
        return self._folder is not None and (
            _read(self._folder / f"{self._name(clip)}.safetensors") is not None
        )

    def size(self, frames: int) -> int:
        """Bytes that the features of so many frames take."""
        spec = self._model.net.spec
        return frames * spec.patches * spec.width * DTYPE.itemsize

    def _name(self, clip: Clip) -> str:
        if clip in self._names:
            return self._names[clip]
        try:
            about = os.stat(clip.video)
        except OSError as error:
            raise MediaError(f"{clip.video}: {error.strerror or error}", kind="Missing") from error
        sampling = replace(self._settings.sampling, start=clip.start, end=clip.end)
        content = {
            "video": [os.path.realpath(clip.video), about.st_size, about.st_mtime_ns],
            "sampling": asdict(sampling),
            "encoder": [self._model.encoder, self._model.dtype],
        }
        told = json.dumps(content, sort_keys=True)
        return self._names.setdefault(clip, hashlib.sha256(told.encode()).hexdigest()[:32])

    def _encode(self, clip: Clip) -> Tensor:
        settings = changed(self._settings, start=clip.start, end=clip.end)
        footage = encode(clip.video, self._model, settings)
        chunks = [features for features, _ in footage.chunks]
        if not chunks:
            raise MediaError(f"{clip.video}: no picture could be decoded", kind="NoPicture")
        for warning in footage.warnings:
            self._on_warning(f"{clip.video}: {warning}")
        features = torch.cat(chunks).to(DTYPE).cpu()
        if not features.isfinite().all():
            raise ModelError(
                f"{clip.video}: its features are NaN or infinite in {DTYPE}",
                hint="try --dtype float32; if it stays so, the weights are broken",
            )
        return features


def _read(path: Path) -> Tensor | None:
    """Features in a file, mapped; None where there are none or the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            features: Tensor = file.get_tensor("features")
    except (SafetensorError, OSError):
        return None
    return features if features.dtype == DTYPE and features.dim() == 3 else None
