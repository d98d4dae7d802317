"""The language model's visual tokens and peak memory against frames, with and without a memory.

Each point runs as `malmm ask --beams 1` does, but for decoding: the frames are noise, so that there
are as many as are asked for. More beams take more memory, which varies more from run to run.
Without a memory the language model is given the tokens of every frame, until it cannot read them or
they do not fit in the machine's memory.
"""

from __future__ import annotations

import bisect
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from malmm_cli.bench.child import in_child, peak_device_mib, peak_mib
from malmm_cli.errors import CapacityError
from malmm_cli.models.capacity import free_memory
from malmm_cli.models.device import pick_device
from malmm_cli.pipeline import answer, watch
from malmm_cli.pipeline.loading import capacity, load
from malmm_cli.settings import prompts_for
from malmm_cli.types import Frame, MediaInfo

__all__ = ["FRAMES", "growth", "measure_growth"]

FRAMES = (20, 40, 60, *(100 * 2**k for k in range(11)))  # up to 28 hours at one a second

QUESTION = "what does the person do?"
SIZE = (640, 360)  # of the video that the frames are said to be of
SHARE = 0.9  # of the free memory that a measurement may take, so that the machine does not run out


def growth(
    model: str,
    *,
    memory: int,
    frames: Sequence[int] = (),
    device: str = "auto",
    dtype: str = "auto",
) -> Iterator[dict[str, Any]]:
    """Rows for each number of frames, with `memory` slots in each bank and with none.

    `frames` are by default `FRAMES`, until the form without a memory fails; the most frames that
    its language model can read then come before those that it cannot. A row has `memory`, `frames`,
    `tokens` (of the video, given to the language model), `context` (those that it reads in all;
    None: any number), `peak_mib`, `peak_device_mib`, `ratio` (of the peak, on the GPU if there is
    one, to that of the same memory's first row), `failed`, why it did, or None, `device` and
    `dtype`. What is not known of a form that failed is None.
    """
    first: dict[int, int] = {}

    def measured(number: int) -> Iterator[dict[str, Any]]:
        for length in (memory, 0):
            how = {"model": model, "device": device, "dtype": dtype}
            row = {"memory": length, "frames": number}
            row |= in_child("growth", **how, memory=length, frames=number)
            peak = row["peak_device_mib"] or row["peak_mib"]
            known = peak if row["peak_mib"] is not None and row["failed"] is None else None
            ratio = round(known / first.setdefault(length, known), 3) if known else None
            yield {**row, "ratio": ratio}

    done = 0
    for number in frames or FRAMES:
        rows = list(measured(number))
        most = rows[-1].pop("most", None)
        if not frames and most is not None and done < most:
            yield from measured(most)
        yield from rows
        if not frames and rows[-1]["failed"]:
            return
        done = number


def measure_growth(model: str, frames: int, memory: int, device: str, dtype: str) -> dict[str, Any]:
    """One point of a row, in this process; `most` frames could be read where these cannot."""
    limit = _limit_memory(pick_device(device))
    loaded = load(model, device=device, dtype=dtype, offline=True)
    loaded = dataclasses.replace(loaded, reader=Noise(frames))
    net, settings = loaded.net, loaded.settings("ask", frames=frames, memory=memory, beams=1)
    prompts, tokens = prompts_for([QUESTION], settings), None

    def row(failed: str | None = None) -> dict[str, Any]:
        about = {"context": net.spec.context, "dtype": loaded.dtype, "device": loaded.device}
        peaks = {"peak_mib": peak_mib(), "peak_device_mib": peak_device_mib(net.device)}
        return {"tokens": tokens, **peaks, "failed": failed, **about}

    def check(number: int) -> None:
        features = net.spec.features(number)
        net.check(prompts, settings.memory, settings.decoding, features)

    try:
        check(frames)
    except CapacityError as error:
        most = _most(check, frames)
        why = f"{error.message}, so at most {most} frames fit"
        return {**row(why), "peak_mib": None, "most": most}
    try:
        with capacity():
            _, context = watch.watch_whole("noise", prompts, loaded, settings)
            tokens = context.tokens.shape[1]
            answer.answered(net, context, prompts, settings.decoding)
    except CapacityError as error:
        return row(f"{error.message} ({limit / 1e9:.1f} GB were free)")
    return row()


class Noise:
    """A reader of a video of so many frames of noise, one a second."""

    def __init__(self, frames: int) -> None:
        self._seconds = np.arange(frames, dtype=np.float64)

    def probe(self, path: str | os.PathLike[str], decoder: str = "auto") -> MediaInfo:
        """What is said of that video, whatever the path."""
        duration = float(len(self._seconds))
        return MediaInfo(os.fspath(path), decoder, *SIZE, duration, 0.0, self._seconds)

    def read(
        self,
        info: MediaInfo,
        seconds: Sequence[float],
        size: tuple[int, int] | None = None,
        on_warning: Callable[[str], None] | None = None,
    ) -> Iterator[Frame]:
        """Frames at those seconds, each other noise."""
        chance = np.random.default_rng(0)
        width, height = size or SIZE
        for second in seconds:
            pixels = chance.integers(0, 256, (height, width, 3), dtype=np.uint8)
            yield Frame(second, second, pixels)


def _most(check: Callable[[int], None], frames: int) -> int:
    """The most frames, fewer than these, that `check` lets pass; 0 for none."""

    def fails(number: int) -> bool:
        with suppress(CapacityError):
            check(number)
            return False
        return True

    return bisect.bisect_left(range(1, frames), True, key=fails)


def _limit_memory(device: torch.device) -> int:
    """Let PyTorch fail before the machine runs out of memory; return the bytes that are free."""
    free = free_memory(device)
    if device.type == "cuda":
        return free
    with suppress(ImportError, AttributeError, OSError, ValueError):  # Windows and macOS
        import resource

        import psutil

        held = psutil.Process().memory_info().data
        limit = held + int(SHARE * free)
        resource.setrlimit(
            resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1])
        )
    return free
