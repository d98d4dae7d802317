"""The cost of reading the frames a model sees, by decoder.

Each reads the same frames of a file at 224 × 224 in a process of its own; opening is counted too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from malmm_cli import media
from malmm_cli.bench.child import in_child, peak_mib
from malmm_cli.errors import MalmmError
from malmm_cli.media.sampling import choose_for
from malmm_cli.settings import Sampling, Settings

__all__ = ["decoding", "measure_decoding"]

SIZE = (224, 224)
READERS = ("decord alone", "pyav", "ffmpeg")


def decoding(video: str, settings: Settings) -> Iterator[dict[str, Any]]:
    """A row for each reader: `seconds`, `cpu` seconds, their `ratio` to those of decord alone.

    `differs` is the mean difference of pixels to the pictures of PyAV, in levels of 255. What is
    not measured has `skipped`, which says why.
    """
    usual: float | None = None
    for reader in READERS:
        row: dict[str, Any] = {"video": video, "reader": reader}
        try:
            how = {"frames": settings.sampling.frames, "fps": settings.sampling.fps}
            row |= in_child("decoding", video=video, reader=reader, **how)
        except MalmmError as error:
            yield {**row, "skipped": error.message}
            continue
        if reader == READERS[0]:
            usual = row["cpu"]
        yield {**row, "ratio": round(row["cpu"] / usual, 2) if usual else None}


def measure_decoding(
    video: str, reader: str, frames: int | None, fps: float | None
) -> dict[str, Any]:
    """Read the frames of one video with one reader."""
    if reader == "decord alone" and find_spec("decord") is None:
        raise MalmmError("decord is not installed")
    info = media.probe(video)
    # known before, so that all read the same
    times = choose_for(info, Sampling(frames=frames, fps=fps))
    begun, worked = time.perf_counter(), _cpu()
    read = _decord if reader == "decord alone" else _ours
    pictures = read(video, times, reader)
    seconds, cpu = time.perf_counter() - begun, _cpu() - worked
    peak = peak_mib()
    ours = _ours(video, times, "pyav")
    return {
        "frames": len(pictures),
        "seconds": round(seconds, 2),
        "cpu": round(cpu, 2),
        "peak_mib": peak,
        "differs": round(float(np.abs(pictures.astype(np.int16) - ours).mean()), 2),
    }


def _ours(video: str, times: NDArray[np.float64], decoder: str) -> NDArray[np.uint8]:
    info = media.probe(video, decoder)
    return np.stack([frame.pixels for frame in media.read(info, times.tolist(), SIZE)])


def _decord(video: str, times: NDArray[np.float64], _: str) -> NDArray[np.uint8]:
    import decord

    reader = decord.VideoReader(os.path.abspath(video), width=SIZE[0], height=SIZE[1])
    begins = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    wanted = np.abs(begins - begins[0] - times[:, None]).argmin(1)
    return np.stack([reader[int(index)].asnumpy() for index in wanted])


def _cpu() -> float:
    """Seconds that processors worked for this process and those it has waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
