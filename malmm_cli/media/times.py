"""When the pictures of a file are shown, and how they are identified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from malmm_cli.media.boxes import Boxes
from malmm_cli.media.edits import Edit, edits_of, follow_edits
from malmm_cli.media.packets import limit_of, open_file, pictures_of, stream_of
from malmm_cli.media.scan import NONE, Scan, in_order, longest_still
from malmm_cli.media.timeline import REORDERED, Splices, clock, usual_gap

__all__ = ["Times", "times_of"]

LEAST = 0.45  # share of packets that hold a picture: two fields are one


@dataclass(frozen=True)
class Times:
    """The times of a Track's pictures; `gap` is how long the last one is shown.

    `promised` is how long all of them are shown in an undamaged file, if an edit list says so,
    `lost` how many packets hold none, if those are too many.
    """

    seconds: NDArray[np.float64]
    gap: float
    stamps: NDArray[np.float64]
    marks: NDArray[np.int64]
    keys: NDArray[np.int64]
    targets: NDArray[np.int64]
    splices: Splices | None = None
    counted: bool = False
    parts: tuple[int, ...] = (0,)
    promised: float | None = None
    lost: int = 0


def times_of(
    path: str, boxes: Boxes | None, container: InputContainer, stream: VideoStream, found: Scan
) -> Times:
    """Return the times of all pictures that are shown; `boxes` are those of an MP4 file."""
    ordered = found.timed and in_order(container, stream, found)
    if ordered:
        times = _packet_times(stream, found)
    else:
        times = _decoded_times(path, container, stream, found)
    if boxes:
        edits = edits_of(boxes, stream.id, float(stream.time_base or 1))
        if not ordered and len(edits) == 1:
            edits = [_without_delay(edits[0], times)]
        return _edited(times, stream, edits)
    return times


def _packet_times(stream: VideoStream, found: Scan) -> Times:
    """Return the times of all pictures as their packets have them."""
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
    packets = int(found.shown.sum())
    lost = packets - len(marks) if len(marks) < LEAST * packets else 0
    stamps = np.where(marks == NONE, np.nan, marks * unit)
    avi = container.format.name == "avi"
    decoding = found.decoding[found.shown]
    missing = len(decoding) - len(marks)  # the first, which refer to what was cut off
    if avi and 0 <= missing <= REORDERED and (decoding != NONE).all():
        stamps = decoding[missing:] * unit  # what FFmpeg makes of them is a guess
    seconds, gap = clock(stamps, _rate(stream), longest_still(container.format.name))
    stamps = seconds + (0.0 if np.isnan(stamps).all() else float(np.nanmin(stamps)))
    if avi or found.made_up or (marks == NONE).any() or len(np.unique(marks)) < len(marks):
        none = np.empty(0, np.int64)
        marks = np.arange(len(marks))
        return Times(seconds, gap, stamps, marks, none, none, counted=True, lost=lost)
    starts, targets = found.starts
    _, which, keys = np.intersect1d(starts, marks, return_indices=True)
    order = np.argsort(keys)
    targets = targets[which][order]
    return Times(seconds, gap, stamps, marks, keys[order], targets, found.splices, lost=lost)


def _without_delay(edit: Edit, times: Times) -> Edit:
    """Return an edit that begins where the pictures do, if it only leaves out what came of delay.

    It does so by times of showing, which the file does not have.
    """
    first = float(times.stamps[0])
    if edit.medium is None or not 0 < edit.medium - first <= REORDERED * times.gap:
        return edit
    return replace(edit, medium=first, length=edit.length + edit.medium - first)


def _edited(times: Times, stream: VideoStream, edits: Sequence[Edit]) -> Times:
    """Return the times of those pictures that the edits show; all, if they show none."""
    unit = float(stream.time_base or 1)
    last, promised = float(times.stamps[-1] + times.gap), float((stream.duration or 0) * unit)
    shown = follow_edits(edits, times.stamps, last, unit=unit, promised=promised)
    if not len(shown.which):
        return times
    starts = (0, *(np.flatnonzero(np.diff(shown.which) <= 0) + 1).tolist())
    keys, targets = [], []
    for start, which in zip(starts, np.split(shown.which, starts[1:]), strict=True):
        places = np.searchsorted(which, times.keys)
        last_of = np.diff(places, append=len(which)) > 0  # of several before one picture
        keys.append(start + places[last_of])
        targets.append(times.targets[last_of])
    first = shown.seconds[0]
    return replace(
        times,
        seconds=shown.seconds - first,
        gap=float(shown.end - shown.seconds[-1]),
        stamps=shown.seconds,
        marks=times.marks[shown.which],
        keys=np.concatenate(keys),
        targets=np.concatenate(targets),
        parts=starts,
        promised=float(shown.promised - first),
    )


def _rate(stream: VideoStream) -> float:
    return float(stream.guessed_rate or stream.average_rate or 25)


def _decoded(path: str, number: int, splices: Splices | None, max_pixels: int) -> NDArray[np.int64]:
    """Decode every picture and return its timestamp, NONE where there is none."""
    with open_file(path, max_pixels) as container:
        frames = pictures_of(container, stream_of(container, number), splices)
        stamps = (NONE if frame.pts is None else frame.pts for frame in frames)
        return np.fromiter(stamps, np.int64)
