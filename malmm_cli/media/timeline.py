"""The times at which pictures are shown, computed from a file's timestamps.

Files say it badly in several ways: times start over or jump where recordings were joined, are
missing, doubled, or are those of decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DAY",
    "REORDERED",
    "Splices",
    "clock",
    "follow",
    "is_still",
    "near",
    "sections",
    "usual_gap",
]

DAY = 24 * 3600.0  # seconds; no picture stays on the screen for longer
SOON, LATELY = 3, 64  # pictures
REORDERED = 17  # pictures; what is shown before a picture is decoded at most so long after it


@dataclass(frozen=True)
class Splices:
    """Where the times of a file jump, and what makes them continue.

    From byte `positions[i]` (S,) on, ascending, `shifts[i]` (S,) has to be added to a timestamp, in
    units of the stream. `by_byte` says that the format can be sought by bytes, which do not start
    over. Times start over by themselves after `wrap`, which is 0 where they do not.
    """

    positions: NDArray[np.int64]
    shifts: NDArray[np.int64]
    by_byte: bool
    wrap: int = 0


def is_still(container: str) -> bool:
    """Say whether files of this format, by FFmpeg's name, are pictures that last no time."""
    return container.endswith("_pipe") or container in {"ico", "image2"}


def near(stamps: NDArray[np.int64], decoding: NDArray[np.int64], wrap: int) -> NDArray[np.int64]:
    """Return the times of showing (T,) that are nearest to those of decoding, wrapped or not."""
    return stamps + wrap * np.rint((decoding - stamps) / wrap).astype(np.int64)


def sections(times: NDArray[Any], back: float, forward: float) -> NDArray[np.int64]:
    """Return where the stretches of `times` (T,) begin, between which they jump; the first is 0.

    A step back by more than `back` is a jump, and one forward by more than `forward`, unless the
    usual step is not much shorter.
    """
    steps = np.diff(times)
    usual = np.median(steps[steps > 0]) if (steps > 0).any() else 0
    jumps = (steps < -back) | (steps > max(forward, 20 * usual))
    return np.concatenate([[0], np.flatnonzero(jumps) + 1]).astype(np.int64)


def follow(stretches: Sequence[NDArray[Any]], gap: float, wraps: Sequence[int] = ()) -> list[Any]:
    """Return for each stretch what to add to its times so that it begins `gap` after the last.

    Where `wraps` is not 0, times have only started over, and that is added.
    """
    shifts: list[Any] = []
    end: Any = None
    for number, times in enumerate(stretches):
        if end is None:
            shifts.append(0)
        elif wraps and wraps[number]:
            shifts.append(shifts[-1] + wraps[number])
        else:
            shifts.append(end + gap - times.min())
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
    step = float(np.median(np.diff(places))) if len(places) > 1 else 1.0
    gap = float(usual_gap(times)) / step or 1 / rate
    stretches = np.split(times, _joints(times, gap, longest)[1:])
    steps = np.concatenate([np.diff(np.unique(stretch)) for stretch in stretches])
    gap = float(np.median(steps)) / step if len(steps) else gap
    shifts = follow(stretches, gap)
    times = np.sort(np.concatenate([part + by for part, by in zip(stretches, shifts, strict=True)]))
    single = np.diff(times, prepend=-np.inf) > 0
    return _spread(places[single], times[single], len(stamps), gap), gap


def _joints(times: NDArray[np.float64], gap: float, longest: float) -> NDArray[np.int64]:
    """Return where stretches of times in the order of showing begin; the first is 0.

    Times in a wrong order step back too, but a picture was shown at none of them before.
    """
    found = set(sections(times, max(1.0, REORDERED * gap), longest).tolist())
    begin = 0
    for at in (np.flatnonzero(np.diff(times) < 0) + 1).tolist():
        again, before = times[at : at + SOON], times[max(begin, at - LATELY) : at]
        away = np.abs(again[:, None] - before).min(1)
        if (
            len(again) == SOON
            and (again <= before.max()).all()
            and (away < 0.6 * usual_gap(before)).all()
        ):
            found.add(at)
        begin = at if at in found else begin
    return np.array(sorted(found), np.int64)


def _spread(
    places: NDArray[np.int64], times: NDArray[np.float64], length: int, gap: float
) -> NDArray[np.float64]:
    """Return times (length,) from 0 that go through `times` at `places`, both ascending."""
    before, after = places[0], length - 1 - places[-1]
    places = np.concatenate([[places[0] - before], places, [places[-1] + after]])
    times = np.concatenate([[times[0] - before * gap], times, [times[-1] + after * gap]])
    whole: NDArray[np.float64] = np.interp(np.arange(length), places, times)
    return np.asarray(whole - whole[0])
