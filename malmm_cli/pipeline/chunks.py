"""Frames → features, in chunks that fit the model's features and bring their halo along.

A chunk has whole features. It is encoded between the frames before and after it that its features
depend on, and what becomes of those is left out: chunks give what the whole video would.

    frames_per_feature 2, halo 1, size 4:   [0 1 2 3]4 5   2 3[4 5 6 7]8 8   6 7[8 8]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch

from malmm_cli.models.base import Features, Spec, VideoModel
from malmm_cli.models.device import Clock
from malmm_cli.types import Frame

__all__ = ["encode_chunks", "frames_in", "margin"]

T = TypeVar("T")


def encode_chunks(
    net: VideoModel[Any], frames: Iterable[Frame], size: int, clock: Clock
) -> Iterator[Features]:
    """Encode the frames of a video, at most `size` new ones at a time, but at least a feature's.

    The last frame is repeated where the last feature lacks some. "decode" of the clock is the time
    waited for frames, "encode" that of the model.
    """
    spec = net.spec
    size = max(size // spec.frames_per_feature, 1) * spec.frames_per_feature
    windows = _windows(_filled(frames, spec.frames_per_feature), size, margin(spec))
    while True:
        with clock("decode"):
            window, begin = next(windows, ([], 0))
        if not window:
            return
        with clock("encode"):
            pixels = torch.from_numpy(np.stack([frame.pixels for frame in window]))
            seconds = torch.tensor([frame.seconds for frame in window], dtype=torch.float64)
            features = net.encode(pixels, seconds)
        first, end = (spec.features(frame) for frame in (begin, begin + size))
        yield features.some(slice(first, end))


def margin(spec: Spec) -> int:
    """Return how many frames a chunk brings along on either side: its halo, in whole features."""
    return spec.features(spec.halo) * spec.frames_per_feature


def frames_in(features: Features, spec: Spec) -> int:
    """Return how many frames the features of a chunk stand for, without a repeated last one."""
    per, (first, last) = spec.frames_per_feature, features.seconds[-1].tolist()
    return len(features.rows) * per - (per - 1 if first == last else 0)


def _filled(frames: Iterable[T], per: int) -> Iterator[T]:
    """Yield frames, the last of them again until there are whole features."""
    number = 0
    for frame in frames:
        number += 1
        yield frame
    for _ in range(-number % per):
        yield frame


def _windows(frames: Iterator[T], size: int, around: int) -> Iterator[tuple[list[T], int]]:
    """Yield chunks with so many frames around them, and where in its window each chunk begins."""
    window = list(islice(frames, size + around))
    begin = 0
    while len(window) > begin:
        yield window, begin
        end = begin + size
        begin = min(end, around)
        window = [*window[end - begin :], *islice(frames, size)]
