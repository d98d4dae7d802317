"""Pictures → H.264 in MP4, by PyAV."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from malmm_cli.errors import UsageError
from malmm_cli.files.atomic import new_path

__all__ = ["write_mp4"]


def write_mp4(
    frames: Iterable[NDArray[np.uint8]], path: str | os.PathLike[str], fps: float
) -> None:
    """Write pictures (H, W, 3) uint8 as H.264 in MP4, index first; whole or not at all."""
    path = Path(path)
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise UsageError("a video needs at least one frame")
    if first.shape[0] % 2 or first.shape[1] % 2:
        raise UsageError(f"width and height must be even, not {first.shape[1]}x{first.shape[0]}")
    with new_path(path) as new:
        _encode(chain([first], frames), new, fps, *first.shape[:2])


def _encode(
    frames: Iterable[NDArray[np.uint8]], path: Path, fps: float, height: int, width: int
) -> None:
    import av  # heavy, and needed only here

    rate = Fraction(fps).limit_denominator(1001)
    options = {"crf": "26", "preset": "fast"}
    with av.open(os.fspath(path), "w", format="mp4", options={"movflags": "faststart"}) as file:
        stream = file.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for k, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = k, 1 / rate
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
