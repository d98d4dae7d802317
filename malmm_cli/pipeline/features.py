"""A video and settings → the features of its sampled frames."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from malmm_cli.datasets.likeness import background_share, looks_drawn
from malmm_cli.events import Warnings
from malmm_cli.files.fingerprint import identity
from malmm_cli.media.prefetch import prefetch
from malmm_cli.media.sampling import choose_for
from malmm_cli.models.base import Features
from malmm_cli.models.device import Clock
from malmm_cli.pipeline.chunks import encode_chunks, margin
from malmm_cli.pipeline.feature_cache import DamagedError, FeatureCache
from malmm_cli.pipeline.feature_files import Writer
from malmm_cli.pipeline.loading import capacity
from malmm_cli.pipeline.model import Model
from malmm_cli.settings import Settings
from malmm_cli.types import Frame, MediaInfo

# A file by its path, or what was found when it was probed: nothing is then probed again.
Video = str | Path | MediaInfo

__all__ = [
    "Video",
    "VideoFeatures",
    "encode",
    "feature_key",
    "open_features",
    "path_of",
    "replayed",
]


def path_of(video: Video | VideoFeatures) -> str:
    """Return the path of a video."""
    if isinstance(video, VideoFeatures):
        return video.info.path
    return video.path if isinstance(video, MediaInfo) else str(video)


@dataclass(frozen=True)
class VideoFeatures:
    """The features of a video's chosen frames, in `chunks`.

    `total` counts the features of all chosen frames; the first `skipped` of them are left out, and
    the others keep their positions. `seconds` adds up what each stage takes. What `encode` and
    `replayed` return can be iterated more than once.
    """

    info: MediaInfo
    chunks: Iterable[Features] = field(repr=False)
    total: int
    skipped: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def close(self) -> None:
        """Stop working on chunks that will not be read."""
        if isinstance(self.chunks, Generator | _Replayed):
            self.chunks.close()

    def newest(self, number: int) -> VideoFeatures:
        """Return only the last features of some that are held in memory."""
        last = Features.joined(list(self.chunks)).some(slice(-number, None))
        return replace(self, chunks=[last], skipped=self.total - len(last.rows))


@capacity(without=("beams", "memory"))
def encode(video: Video, model: Model, settings: Settings) -> VideoFeatures:
    """All frames of a video that settings choose, decoded and encoded, held in memory."""
    with closing(open_features(video, model, settings)) as found:
        return replace(found, chunks=list(found.chunks))


def open_features(video: Video, model: Model, settings: Settings) -> VideoFeatures:
    """The frames of a video that settings choose, decoded and encoded as they are asked for, once.

    A thread decodes frames ahead; "decode" of the clock is the time waited for them. On CUDA a
    second thread encodes them ahead, so that "encode" runs beside "remember". With a cache,
    features are in half precision, whether they were cached or are cached now.
    """
    seconds: dict[str, float] = {}
    clock = Clock(model.net.device, seconds)
    with clock("open"):
        info = video
        if not isinstance(info, MediaInfo):
            info = model.reader.probe(info, settings.sampling.decoder)
        else:
            seconds["open"] = info.probe_seconds
        times = choose_for(info, settings.sampling)
    warnings = list(info.warnings)
    frames = _Frames(info, times, model, clock, warnings)
    chunks = frames.encoded()
    if model.cache is not None:
        try:
            file = identity(info.path, full=model.cache.full_hash)
        except OSError as error:
            warnings.append(f"features are not cached: {error}")
        else:
            chunks = frames.cached(model.cache, file)
    if model.net.device.type == "cuda":
        chunks = prefetch(_on_a_stream(chunks, model.net.device), 1)
    total = model.net.spec.features(len(times))
    return VideoFeatures(info, chunks, total, seconds=seconds, warnings=warnings)


def _on_a_stream(chunks: Iterator[Features], device: torch.device) -> Iterator[Features]:
    """The same, made on a stream of their own: the encoder's kernels run beside the step's.

    A chunk is complete when it is yielded (`Clock` waits for it), and whoever takes it must be done
    with it before asking for the next.
    """
    stream: Any = torch.cuda.Stream  # has no types
    with torch.cuda.stream(stream(device)):
        yield from chunks


def replayed(found: VideoFeatures) -> VideoFeatures:
    """The same, made once and then held in the machine's memory, to be iterated again and again."""
    return replace(found, chunks=_Replayed(found.chunks))


class _Replayed:
    """Chunks that are kept once they are made."""

    def __init__(self, chunks: Iterable[Features]) -> None:
        self._rest = iter(chunks)
        self._made: list[Features] = []

    def __iter__(self) -> Iterator[Features]:
        yield from self._made
        for features in self._rest:
            self._made.append(features.to("cpu"))
            yield features

    def close(self) -> None:
        """Make no more of them."""
        if isinstance(self._rest, Generator):
            self._rest.close()


@dataclass(frozen=True)
class _Frames:
    """Frames of a video at `times`; damage found on the way is appended to `warnings`."""

    info: MediaInfo
    times: NDArray[np.float64]
    model: Model
    clock: Clock
    warnings: list[str]

    def encoded(self, after: float = -math.inf) -> Generator[Features]:
        """Frames later than that, decoded and encoded chunk by chunk."""
        net, size = self.model.net, self.model.chunk
        begin = int((self.times <= after).sum())
        times = self.times[max(begin - margin(net.spec), 0) :].tolist()
        side = net.frame_size(self.info.width, self.info.height)
        read = self.model.reader.read(self.info, times, side, self.warnings.append)
        with closing(prefetch(read, 2 * size)) as frames:
            for features in encode_chunks(net, self._compared(frames), size, self.clock):
                known = int((features.seconds[:, 1] <= after).sum())
                if known < len(features.rows):
                    yield features.some(slice(known, None))

    def _compared(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """The same; warns at the end if they are unlike all that the model was trained on."""
        shares: list[NDArray[np.float64]] = []
        for frame in frames:
            if self.model.origin.world:
                shares.append(background_share(frame.pixels[None]))
            yield frame
        if shares and not looks_drawn(np.concatenate(shares)):
            self.warnings.append(
                f"unlike the drawn videos that {self.model.name} was trained on; "
                "texts about it mean nothing"
            )

    def cached(self, cache: FeatureCache, file: str) -> Generator[Features]:
        """What `encoded` gives, in half precision: from the cache, or stored there.

        If an entry is damaged, what follows comes from the video, and the entry is rebuilt.
        """
        key, last, good = (
            feature_key(file, self.info.decoder, self.model, self.times.tolist()),
            -math.inf,
            0,
        )
        if (entry := cache.find(key)) is not None:
            try:
                entry.check(self.model.net.spec)
                for number, features in enumerate(entry.chunks(), 1):
                    yield features
                    last, good = float(features.seconds[-1, 1]), number
            except DamagedError:  # what came before it was intact, and is used
                pass
            else:
                self.warnings.extend(entry.warnings)
                return
        known = len(self.warnings)
        with (
            closing(Writer(cache, key, Warnings(self.warnings))) as writer,
            closing(self.encoded(after=last)) as chunks,
        ):
            copied = 0
            if entry is not None:
                with suppress(DamagedError):  # another process may have removed it meanwhile
                    for features in islice(entry.chunks(), good):
                        writer.add(features)
                        copied += 1
                cache.remove(entry)
            for features in chunks:
                yield writer.add(features)
            if copied == good:
                writer.finish(self.info.path, self.model.name, self.warnings[known:])


def feature_key(file: str, decoder: str, model: Model, times: Sequence[float]) -> str:
    """A name for what decides features: the file, the decoder, the encoder, the times."""
    parts = (file, decoder, model.fingerprints.encoder, model.dtype, list(times))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
