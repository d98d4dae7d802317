"""When the pictures of a file are shown, and what tells them apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from malmm_cli.media.packets import limit_of, open_file, pictures_of, stream_of
from malmm_cli.media.scan import NONE, Scan, in_order, longest_still
from malmm_cli.media.timeline import Splices, clock, usual_gap

__all__ = ["Times", "times_of"]


@dataclass(frozen=True)
class Times:
    """What a Track says of its pictures in time; `gap` is how long the last one is shown."""

    seconds: NDArray[np.float64]
    gap: float
    stamps: NDArray[np.float64]
    marks: NDArray[np.int64]
    keys: NDArray[np.int64]
    targets: NDArray[np.int64]
    splices: Splices | None = None
    counted: bool = False


def times_of(path: str, container: InputContainer, stream: VideoStream, found: Scan) -> Times:
    """Return the times of all pictures: those of their packets, if they are to be believed."""
    if not found.timed or not in_order(container, stream, found):
        return _decoded_times(path, container, stream, found)
    unit = float(stream.time_base or 1)
    shown = np.flatnonzero(found.shown)
    marks, places = np.unique(found.stamps[shown], return_index=True)
    gap = int(found.end - marks[-1]) or int(usual_gap(marks))  # packets may know no duration
    keys, targets = found.starts
    keys = np.searchsorted(marks, keys)
    last = np.diff(keys, append=len(marks)) > 0  # of several before one picture
    return Times(
        seconds=np.asarray((marks - marks[0]) * unit),
        gap=gap * unit or 1 / _rate(stream),
        stamps=np.asarray(found.source[shown[places]] * unit),
        marks=marks,
        keys=keys[last],
        targets=targets[last],
        splices=found.splices,
    )


def _decoded_times(path: str, container: InputContainer, stream: VideoStream, found: Scan) -> Times:
    """Return the times of all pictures, decoded for once to see in which order they come.

    Their timestamps still tell them apart if no two have the same.
    """
    unit = float(stream.time_base or 1)
    marks = _decoded(path, stream.index, found.splices, limit_of(container))
    stamps = np.where(marks == NONE, np.nan, marks * unit)
    avi = container.format.name == "avi"
    decoding = found.decoding[found.shown]
    if avi and len(decoding) == len(marks) and (decoding != NONE).all():
        stamps = decoding * unit  # what FFmpeg makes of them is a guess
    seconds, gap = clock(stamps, _rate(stream), longest_still(container.format.name))
    stamps = seconds + (0.0 if np.isnan(stamps).all() else float(np.nanmin(stamps)))
    if avi or found.made_up or (marks == NONE).any() or len(np.unique(marks)) < len(marks):
        none = np.empty(0, np.int64)
        return Times(seconds, gap, stamps, np.arange(len(marks)), none, none, counted=True)
    starts, targets = found.starts
    _, which, keys = np.intersect1d(starts, marks, return_indices=True)
    order = np.argsort(keys)
    targets = targets[which][order]
    return Times(seconds, gap, stamps, marks, keys[order], targets, found.splices)


def _rate(stream: VideoStream) -> float:
    return float(stream.guessed_rate or stream.average_rate or 25)


def _decoded(path: str, number: int, splices: Splices | None, max_pixels: int) -> NDArray[np.int64]:
    """Decode every picture and return its timestamp, NONE where there is none."""
    with open_file(path, max_pixels) as container:
        frames = pictures_of(container, stream_of(container, number), splices)
        stamps = (NONE if frame.pts is None else frame.pts for frame in frames)
        return np.fromiter(stamps, np.int64)
