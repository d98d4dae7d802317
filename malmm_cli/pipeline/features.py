"""A video and settings → the features of its chosen frames, as they are asked for."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from malmm_cli.files.fingerprint import identity
from malmm_cli.media.prefetch import ahead
from malmm_cli.media.sampling import choose_for
from malmm_cli.models.base import Features
from malmm_cli.models.device import Clock
from malmm_cli.pipeline.feature_cache import Cache, DamagedError, Writer
from malmm_cli.pipeline.loading import Model, capacity
from malmm_cli.settings import Settings
from malmm_cli.types import MediaInfo

__all__ = ["Footage", "as_features", "encode", "open_footage", "replayed"]

Chunk = tuple[Tensor, list[float]]


@dataclass(frozen=True)
class Footage:
    """Chosen frames of a video, encoded: `chunks` of features (T, P, C) and times in seconds.

    `total` counts the frames; the first `skipped` of them are left out, and the others keep their
    positions. `seconds` adds up what each
    stage takes. What `encode` and `replayed` give can be watched again and again.
    """

    info: MediaInfo
    chunks: Iterable[Chunk] = field(repr=False)
    total: int
    skipped: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def close(self) -> None:
        """End the work on chunks that nobody will ask for."""
        if isinstance(self.chunks, Generator | _Replayed):
            self.chunks.close()


def as_features(chunk: Chunk) -> Features:
    """A chunk as a memory observes it."""
    rows, times = chunk
    return Features(rows, torch.tensor(times, dtype=torch.float64)[:, None].expand(-1, 2))


@capacity()
def encode(video: str | Path, model: Model, settings: Settings) -> Footage:
    """All frames of a video that settings choose, decoded and encoded, held in memory."""
    with closing(open_footage(video, model, settings)) as footage:
        return replace(footage, chunks=list(footage.chunks))


def open_footage(video: str | Path, model: Model, settings: Settings) -> Footage:
    """The frames of a video that settings choose, decoded and encoded as they are asked for, once.

    Frames are decoded ahead by a thread; "decode" of the clock is what was waited for them. On CUDA
    a second one encodes them ahead, so that "encode" goes on beside "remember". With a cache,
    features are in half precision, whether they were there or are kept now.
    """
    seconds: dict[str, float] = {}
    clock = Clock(model.net.device, seconds)
    with clock("open"):
        info = model.reader.probe(video, settings.sampling.decoder)
        times = choose_for(info, settings.sampling)
    warnings = list(info.warnings)
    frames = _Chosen(info, times, model, clock, warnings)
    chunks = frames.encoded()
    if model.cache is not None:
        try:
            file = identity(video, full=model.cache.full_hash)
        except OSError as error:
            warnings.append(f"features are not kept: {error}")
        else:
            chunks = frames.cached(model.cache, file)
    if model.net.device.type == "cuda":
        chunks = ahead(_on_a_stream(chunks, model.net.device), 1)
    return Footage(info, chunks, len(times), seconds=seconds, warnings=warnings)


def _on_a_stream(chunks: Iterator[Chunk], device: torch.device) -> Iterator[Chunk]:
    """The same, made on a stream of their own: the encoder's kernels run beside the step's.

    A chunk is whole when it comes (`Clock` waits for it), and whoever takes it must be done with it
    when it asks for the next.
    """
    stream: Any = torch.cuda.Stream  # has no types
    with torch.cuda.stream(stream(device)):
        yield from chunks


def replayed(footage: Footage) -> Footage:
    """The same, made once and then held in the machine's memory, to be watched again and again."""
    return replace(footage, chunks=_Replayed(footage.chunks))


class _Replayed:
    """Chunks that stay once they are made."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._rest = iter(chunks)
        self._made: list[Chunk] = []

    def __iter__(self) -> Iterator[Chunk]:
        yield from self._made
        for features, times in self._rest:
            self._made.append((features.cpu(), times))
            yield features, times

    def close(self) -> None:
        """Make no more of them."""
        if isinstance(self._rest, Generator):
            self._rest.close()


@dataclass(frozen=True)
class _Chosen:
    """Frames of a video at `times`; `warnings` grows by what is found to be damaged."""

    info: MediaInfo
    times: NDArray[np.float64]
    model: Model
    clock: Clock
    warnings: list[str]

    def encoded(self, after: float = -math.inf) -> Generator[Chunk]:
        """Frames later than that, decoded and encoded chunk by chunk."""
        net, size = self.model.net, self.model.chunk
        times = self.times[self.times > after].tolist()
        side = net.frame_size(self.info.width, self.info.height)
        read = self.model.reader.read(self.info, times, side, self.warnings.append)
        with closing(ahead(read, 2 * size)) as frames:
            while True:
                with self.clock("decode"):
                    chunk = list(islice(frames, size))
                if not chunk:
                    return
                with self.clock("encode"):
                    pixels = torch.from_numpy(np.stack([frame.pixels for frame in chunk]))
                    shown = [frame.seconds for frame in chunk]
                    features = net.encode(pixels, torch.tensor(shown, dtype=torch.float64)).rows
                yield features, shown

    def cached(self, cache: Cache, file: str) -> Generator[Chunk]:
        """What `encoded` gives, in half precision: from the cache, or to be kept there.

        What follows where an entry is damaged comes from the video, and the entry is made anew.
        """
        key, last, good = self._key(file), -math.inf, 0
        if (entry := cache.find(key)) is not None:
            try:
                entry.check(self.model.net.spec.patches, self.model.net.spec.width)
                for number, (features, seconds) in enumerate(entry.chunks(), 1):
                    yield features, seconds
                    last, good = seconds[-1], number
            except DamagedError:  # what came before it was whole, and is used
                pass
            else:
                self.warnings.extend(entry.warnings)
                return
        known = len(self.warnings)
        with (
            closing(Writer(cache, key, self.warnings.append)) as writer,
            closing(self.encoded(after=last)) as chunks,
        ):
            copied = 0
            if entry is not None:
                with suppress(DamagedError):  # somebody else may have removed it meanwhile
                    for features, seconds in islice(entry.chunks(), good):
                        writer.add(features, seconds)
                        copied += 1
                cache.remove(entry)
            for features, seconds in chunks:
                yield writer.add(features, seconds), seconds
            if copied == good:
                writer.finish(self.info.path, self.model.name, self.warnings[known:])

    def _key(self, file: str) -> str:
        """A name for what decides features: the file, who decodes it, the encoder, the times."""
        about = (file, self.info.decoder, self.model.encoder, self.model.dtype, self.times.tolist())
        return hashlib.sha256(repr(about).encode()).hexdigest()[:32]
