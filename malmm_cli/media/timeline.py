"""The times at which pictures are shown, from what a file says of them. Nothing but arithmetic.

Files say it badly in several ways: times start over or jump where recordings were joined, are
missing, doubled, or are those of decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DAY", "REORDERED", "Splices", "clock", "follow", "is_still", "sections", "usual_gap"]

DAY = 24 * 3600.0  # seconds; no picture stays on the screen for longer
REORDERED = 17  # pictures; what is shown before a picture is decoded at most so long after it


@dataclass(frozen=True)
class Splices:
    """Where the times of a file jump, and what makes them continue.

    From byte `positions[i]` (S,) on, ascending, `shifts[i]` (S,) has to be added to a timestamp, in
    units of the stream. `by_byte` says that the format can be sought by bytes, which do not start
    over.
    """

    positions: NDArray[np.int64]
    shifts: NDArray[np.int64]
    by_byte: bool


def is_still(container: str) -> bool:
    """Say whether files of this format, by FFmpeg's name, are pictures that last no time."""
    return container.endswith("_pipe") or container in {"ico", "image2"}


def sections(times: NDArray[Any], back: float, forward: float) -> NDArray[np.int64]:
    """Return where the stretches of `times` (T,) begin, between which they jump; the first is 0.

    A step back by more than `back` is a jump, and one forward by more than `forward`, unless the
    usual step is not much shorter.
    """
    steps = np.diff(times)
    usual = np.median(steps[steps > 0]) if (steps > 0).any() else 0
    jumps = (steps < -back) | (steps > max(forward, 20 * usual))
    return np.concatenate([[0], np.flatnonzero(jumps) + 1]).astype(np.int64)


def follow(stretches: Sequence[NDArray[Any]], gap: float) -> list[Any]:
    """Return for each stretch what to add to its times so that it begins `gap` after the last."""
    shifts: list[Any] = []
    end: Any = None
    for times in stretches:
        shifts.append(0 if end is None else end + gap - times.min())
        end = times.max() + shifts[-1]
    return shifts


def usual_gap(times: NDArray[Any]) -> Any:
    """Return the median step between different `times` (T,) in any order; 0 for fewer than two."""
    steps = np.diff(np.unique(times))
    return np.median(steps).astype(times.dtype) if len(steps) else times.dtype.type(0)


def clock(
    stamps: NDArray[np.float64], rate: float, longest: float = DAY
) -> tuple[NDArray[np.float64], float]:
    """Return times (T,) that ascend from 0 for pictures in the order of showing, and the usual gap.

    `stamps` (T,) are their timestamps in seconds, NaN where there is none. Those of decoding,
    instead of showing, come in the wrong order, but the set of them is right: they are sorted.
    Where they jump, by more than `longest` or back, they continue from the time before. Missing and
    doubled ones are spread between their neighbours, 1/`rate` apart where nothing is known.
    """
    places = np.flatnonzero(~np.isnan(stamps))
    if not len(places):
        return np.arange(len(stamps)) / rate, 1 / rate
    times = stamps[places]
    gap = float(usual_gap(times)) or 1 / rate
    starts = sections(times, max(1.0, REORDERED * gap), longest)
    stretches = np.split(times, starts[1:])
    shifts = follow(stretches, gap)
    times = np.sort(np.concatenate([part + by for part, by in zip(stretches, shifts, strict=True)]))
    single = np.diff(times, prepend=-np.inf) > 0
    return _spread(places[single], times[single], len(stamps), gap), gap


def _spread(
    places: NDArray[np.int64], times: NDArray[np.float64], length: int, gap: float
) -> NDArray[np.float64]:
    """Return times (length,) from 0 that go through `times` at `places`, both ascending."""
    before, after = places[0], length - 1 - places[-1]
    places = np.concatenate([[places[0] - before], places, [places[-1] + after]])
    times = np.concatenate([[times[0] - before * gap], times, [times[-1] + after * gap]])
    whole: NDArray[np.float64] = np.interp(np.arange(length), places, times)
    return np.asarray(whole - whole[0])
