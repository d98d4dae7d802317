"""Frames → features, in chunks that fit the model's features and bring their halo along.

A chunk has whole features. It is encoded between the frames before and after it that its features
depend on, and what becomes of those is left out: chunks give what the whole video would.

    frames_per_feature 2, halo 1, size 4:   [0 1 2 3]4 5   2 3[4 5 6 7]8 8   6 7[8 8]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch

from malmm_cli.models.base import Features, Spec, VideoModel
from malmm_cli.models.device import Clock
from malmm_cli.models.shortage import Step
from malmm_cli.types import Frame

__all__ = ["encode_chunks", "encoding", "frames_in", "margin"]

T = TypeVar("T")


def encode_chunks(
    net: VideoModel[Any], frames: Iterable[Frame], size: int, clock: Clock
) -> Iterator[Features]:
    """Encode the frames of a video, at most `size` new ones at a time, but at least a feature's.

    The last frame is repeated where the last feature lacks some. "decode" of the clock is the time
    waited for frames, "encode" that of the model. Where memory runs out, chunks are smaller from
    then on; CapacityError where those do not fit either.
    """
    spec, window, begin = net.spec, list[Frame](), 0
    per, around = spec.frames_per_feature, margin(spec)
    step = encoding(net, max(size // per, 1) * per)
    rest = _filled(frames, per)
    while True:
        with clock("decode"):
            lacking = begin + step.size + around - len(window)
            window += islice(rest, max(lacking, 0))
        if len(window) <= begin:
            return
        step.size = min(step.size, len(window) - begin)
        end, features = begin + step.size, None
        with clock("encode"), step:
            features = _encoded(net, window[: end + around])
        if features is not None:
            yield features.some(slice(spec.features(begin), spec.features(end)))
            begin = min(end, around)
            window = window[end - begin :]


def encoding(net: VideoModel[Any], size: int) -> Step:
    """Return the step in which so many frames are encoded at a time."""
    return Step(net, size, "encode {}", "frame", least=net.spec.frames_per_feature)


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


def _encoded(net: VideoModel[Any], frames: Sequence[Frame]) -> Features:
    pixels = torch.from_numpy(np.stack([frame.pixels for frame in frames]))
    return net.encode(pixels, torch.tensor([f.seconds for f in frames], dtype=torch.float64))
