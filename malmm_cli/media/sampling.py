"""Which frames of a video to use: arithmetic from times to times."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from malmm_cli.errors import UsageError
from malmm_cli.settings import Sampling
from malmm_cli.text.clock import seconds_text
from malmm_cli.types import MediaInfo

__all__ = ["choose", "choose_for"]

# Containers round timestamps, most coarsely to milliseconds, and each difference holds two of them.
ROUNDING = 0.001 + 1e-6


def choose(
    seconds: NDArray[np.float64], duration: float, sampling: Sampling
) -> NDArray[np.float64]:
    """Choose from `seconds` (T,), the ascending times of all pictures, the ones to use.

    `frames` = N spreads N instants from the first to the last picture and takes the picture nearest
    to each; N = 1 takes the middle. `fps` = R takes the picture on the screen at the instants k/R;
    where these are more than `max_frames`, they are thinned out evenly. With neither, every picture
    is chosen. `start` and `end`, in seconds, restrict all of this to what is on the screen from one
    to the other, both included; the picture at `start` counts from there.

    Returns ascending values out of `seconds`, none twice. Raises UsageError for values that make no
    sense and for a `start` past the end of the video.
    """
    sampling.check()
    start, end = sampling.start, sampling.end
    first, last = _range(seconds, duration, start, end)
    if sampling.fps is not None:
        begin, stop = start or 0.0, _stop(duration, end)
        indices = _on_screen(seconds, sampling.fps, begin, stop)
    elif sampling.frames is not None:
        indices = first + _nearest(seconds[first:last], sampling.frames, start or 0.0)
    else:
        indices = np.arange(first, last)
    most = sampling.max_frames
    if most is not None and len(indices) > most:
        indices = indices[_spread(len(indices), most)]
    return seconds[indices]


def choose_for(info: MediaInfo, sampling: Sampling) -> NDArray[np.float64]:
    """Choose from the pictures of a file."""
    return choose(info.seconds, info.duration, sampling)


def _range(
    seconds: NDArray[np.float64], duration: float, start: float | None, end: float | None
) -> tuple[int, int]:
    """Return the index of the first picture in the range and the one after its last."""
    if start is not None and start > seconds[-1] + ROUNDING and start >= duration:
        shown = seconds_text(start)
        raise UsageError(f"--from {shown} is past the end of the video, at {duration:.2f} s")
    # the picture on the screen at the start may have appeared long before
    first = int(np.searchsorted(seconds, start + ROUNDING, "right")) - 1 if start else 0
    last = len(seconds) if end is None else int(np.searchsorted(seconds, end + ROUNDING, "right"))
    return first, last


def _stop(duration: float, end: float | None) -> float:
    """Return where the instants of --fps stop: before the end of the video, or at `end` itself."""
    return duration if end is None or end >= duration else end + 2 * ROUNDING


def _on_screen(
    seconds: NDArray[np.float64], fps: float, begin: float, stop: float
) -> NDArray[np.int64]:
    """Return the pictures on the screen at begin + k/fps; asked of each picture, not each instant.

    A picture is on the screen until the next one appears, and is taken if an instant falls between.
    """
    slack = min(ROUNDING, 0.25 / fps)
    appears = np.maximum(seconds - begin - slack, -slack)
    leaves = np.append(appears[1:], max(stop - begin - slack, slack))  # a still has instant 0
    # the first instant not before a time t is number ceil(t * fps)
    return np.flatnonzero(np.ceil(appears * fps) < np.ceil(np.minimum(leaves, leaves[-1]) * fps))


def _nearest(seconds: NDArray[np.float64], number: int, begin: float) -> NDArray[np.int64]:
    """Return the pictures nearest to `number` instants spread from the first to the last.

    None counts from before `begin`.
    """
    if number >= len(seconds):
        return np.arange(len(seconds))
    steady = np.linspace(seconds[0], seconds[-1], len(seconds))
    gap = (seconds[-1] - seconds[0]) / (len(seconds) - 1)
    if np.abs(seconds - steady).max() <= min(ROUNDING, gap / 2):
        # Constant rate but for rounding. Choosing by number is then choosing by time, and ties
        # (an instant half-way between two pictures) do not hang on how timestamps were rounded.
        return _spread(len(seconds), number)
    seconds = np.maximum(seconds, begin)
    if number == 1:
        instants = np.array([(seconds[0] + seconds[-1]) / 2])
    else:
        instants = np.linspace(seconds[0], seconds[-1], number)
    after = np.searchsorted(seconds, instants).clip(1, len(seconds) - 1)
    before = after - 1
    late, early = instants - seconds[before], seconds[after] - instants
    even = np.where(before % 2 == 0, before, after)  # what rint does with a tie
    tie = np.abs(late - early) < 1e-9
    return np.unique(np.where(tie, even, np.where(late < early, before, after)))


def _spread(length: int, number: int) -> NDArray[np.int64]:
    """Return `number` indices spread evenly over range(length); one index is the middle."""
    if number == 1:
        return np.array([np.rint((length - 1) / 2)], np.int64)
    return np.rint(np.linspace(0, length - 1, number)).astype(np.int64)
