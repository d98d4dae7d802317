"""Features of training clips, computed once by the frozen encoder."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from malmm_cli.errors import MediaError, ModelError
from malmm_cli.events import Events
from malmm_cli.files.fingerprint import identity
from malmm_cli.models.base import Features, Work
from malmm_cli.pipeline.feature_cache import DamagedError, FeatureCache
from malmm_cli.pipeline.features import encode, feature_key
from malmm_cli.pipeline.model import Model
from malmm_cli.settings import Settings, changed

__all__ = ["Chosen", "Clip", "ClipFeatures"]

DTYPE = torch.float16


@dataclass(frozen=True)
class Clip:
    """A video, or its part from `start` to `end` seconds."""

    video: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Chosen:
    """The frames of a clip to look at, by their `times` in seconds, and who decodes them."""

    decoder: str
    times: tuple[float, ...]


class ClipFeatures:
    """Features of clips, float16, from a feature cache in `folder`, or encoded.

    Without a folder every clip is encoded each time. `events` get a note on each damaged video.
    """

    def __init__(
        self,
        model: Model,
        settings: Settings,
        chosen: Mapping[Clip, Chosen],
        folder: Path | None,
        events: Events,
    ) -> None:
        self._cache = None if folder is None else FeatureCache(folder, limit=math.inf)
        if self._cache is not None:
            self._cache.make_room(0)  # removes what runs that were killed have left behind
        self._model = replace(model, cache=self._cache)
        self._settings = settings
        self._chosen = chosen
        self._events = events
        self._keys: dict[Clip, str] = {}

    def __call__(self, clip: Hashable) -> Features:
        """The features of a clip, from the cache; encoded where they are missing or damaged."""
        assert isinstance(clip, Clip)
        if self._cache is not None and (entry := self._cache.find(self._key(clip))) is not None:
            try:
                return Features.joined(list(entry.chunks()))
            except DamagedError:  # it is rebuilt
                pass
        return self._encode(clip)

    def has(self, clip: Clip) -> bool:
        """Whether the features of a clip are cached, complete by their headers."""
        entry = self._cache.find(self._key(clip)) if self._cache is not None else None
        try:
            if entry is not None:
                entry.check(self._model.net.spec)
        except DamagedError:
            return False
        return entry is not None

    def size(self, clip: Clip) -> int:
        """Bytes that the features of a clip take."""
        net = self._model.net
        number = net.spec.features(len(self._chosen[clip].times))
        if net.spec.patches is None:  # the clip is not probed again for them
            return number * net.bytes_for(Work("feature"))
        shapes = net.spec.shapes(number, net.spec.patches)
        del shapes["seconds"]
        return DTYPE.itemsize * sum(map(math.prod, shapes.values()))

    def _key(self, clip: Clip) -> str:
        if clip not in self._keys:
            try:
                file = identity(clip.video)
            except OSError as error:
                reason = error.strerror or error
                raise MediaError(f"{clip.video}: {reason}", kind="Missing") from error
            chosen = self._chosen[clip]
            self._keys[clip] = feature_key(file, chosen.decoder, self._model, chosen.times)
        return self._keys[clip]

    def _encode(self, clip: Clip) -> Features:
        settings = changed(self._settings, start=clip.start, end=clip.end)
        found = encode(clip.video, self._model, settings)
        chunks = list(found.chunks)
        if not chunks:
            raise MediaError(f"{clip.video}: no frame could be decoded", kind="NoPicture")
        for warning in found.warnings:
            self._events.note(f"{clip.video}: {warning}")
        features = Features.joined(chunks).to("cpu", DTYPE)
        if not features.rows.isfinite().all():
            raise ModelError(
                f"{clip.video}: features are NaN or infinite in {DTYPE}",
                hint="try --dtype float32; if that does not help, the weights are damaged",
            )
        return features
