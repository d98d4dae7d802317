"""PyAV, the decoder of choice: read every packet's time, then seek to what is wanted.

No number in a header is believed. A scan over the packets, which decodes nothing, finds the time of
each picture and the pictures that decoding can start at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from malmm_cli.errors import MediaError
from malmm_cli.media.files import shown
from malmm_cli.media.geometry import UPRIGHT, Pixels, Turn, display_size, turn, turn_of, turned_by
from malmm_cli.media.packets import (
    open_file,
    packets_of,
    picture_streams,
    pictures_of,
    stream_of,
)
from malmm_cli.media.track import Track, clock

__all__ = ["pictures", "probe"]

SLACK = 1.0  # seconds that a header may promise too much
WORTH_A_SEEK = 24  # pictures; a seek throws away what the decoder's threads have begun


def probe(path: str) -> Track:
    """Scan the packets of `path`; raises MediaError if it shows no picture."""
    with open_file(path) as container:
        numbers = picture_streams(path, container)
    for number in numbers:
        scan = _scan(path, number)
        if scan.stamps:
            with open_file(path) as container:
                stream = stream_of(container, number)
                frames = pictures_of(container, stream)
                first = next(frames, None)
                if first is not None:
                    scan.plain &= len(numbers) == 1
                    track = _track(path, container, stream, scan, first)
                    return _by_fields(track) if _has_fields(track, first, frames) else track
    raise MediaError(f"{shown(path)}: no picture could be decoded", kind="NoPicture")


def pictures(track: Track, indices: Sequence[int]) -> Iterator[tuple[int, Pixels]]:
    """Yield (index, upright pixels) for ascending `indices`; what cannot be decoded is left out."""
    reader = _Reader(track)
    try:
        for index in indices:
            frame = reader.at(int(track.marks[index]))
            if frame is not None:
                yield index, turn(_rgb(frame), track.turn)
    finally:
        reader.close()


# --- scanning


@dataclass
class _Scan:
    """What the packets say of the pictures, in decoding order."""

    stamps: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)  # stamps of the pictures decoding can start at
    order: list[int] = field(default_factory=list)  # when to decode them, as far as they say so
    end: int = -(2**63)  # when the last picture leaves the screen
    trusted: bool = True  # every picture has a timestamp, and they do not start over
    plain: bool = True
    cut: bool = False  # the file ends within a packet


def _scan(path: str, number: int) -> _Scan:
    scan = _Scan()
    with open_file(path) as container:
        stream = stream_of(container, number)
        vp8 = stream.codec_context.name == "vp8"
        for packet in packets_of(container, stream):
            scan.cut = packet.is_corrupt
            if packet.dts is not None:
                scan.trusted &= not scan.order or packet.dts >= scan.order[-1]
                scan.order.append(packet.dts)
            if packet.pts is None:
                scan.trusted = False
                scan.stamps.append(0)
                continue
            if packet.is_keyframe:
                scan.keys.append(packet.pts)
            scan.plain &= not packet.is_discard and packet.pts >= max(scan.keys[-1:], default=0)
            if packet.is_discard or (vp8 and not memoryview(packet)[0] & 0x10):
                continue  # cut away by an edit list, or a reference picture that is never shown
            scan.stamps.append(packet.pts)
            scan.end = max(scan.end, packet.pts + (packet.duration or 0))
        scan.trusted &= not _reordered_avi(container, stream)
    if scan.cut and len(scan.stamps) > 1:
        scan.end = scan.stamps.pop()  # half a picture
    return scan


def _track(
    path: str, container: InputContainer, stream: VideoStream, scan: _Scan, first: VideoFrame
) -> Track:
    """Join the scan and the look of the first picture."""
    rate = float(stream.guessed_rate or stream.average_rate or 25)
    unit = float(stream.time_base or 1)
    if scan.trusted:
        marks = np.unique(np.array(scan.stamps, np.int64))
        keys = np.unique(np.array(scan.keys, np.int64))
        stamps = marks.astype(np.float64) * unit
        seconds, gap = clock(stamps, rate)
        if scan.end > marks[-1]:  # else no packet knows its duration
            gap = scan.end * unit - stamps[-1]
    else:
        stamps = _count(path, stream.index)
        if _reordered_avi(container, stream) and len(stamps) == len(scan.order):
            stamps = np.array(scan.order) * unit
        seconds, gap = clock(stamps, rate)
        stamps = np.where(np.isnan(stamps), seconds, stamps)
        marks, keys = np.arange(len(stamps)), np.empty(0, np.int64)
    how = _turn(first)
    aspect = float(stream.sample_aspect_ratio or 0)
    width, height = display_size(first.width, first.height, aspect, how)
    still = container.format.name.endswith("_pipe") or container.format.name == "image2"
    duration = 0.0 if still else float(seconds[-1] + gap)
    return Track(
        path=path,
        decoder="pyav",
        width=width,
        height=height,
        duration=duration,
        source_start=float(stamps[0]),
        seconds=seconds,
        warnings=_cut_off(stream, float(stamps[0]), duration, scan.cut),
        container=container.format.name,
        codec=stream.codec_context.name,
        stream=stream.index,
        turn=how,
        plain=scan.plain,
        stamps=stamps,
        marks=marks,
        keys=keys,
    )


def _has_fields(track: Track, first: VideoFrame, frames: Iterator[VideoFrame]) -> bool:
    """Say whether, of the first second or so, packets have timestamps that no picture has."""
    if not first.interlaced_frame or not len(track.keys):
        return False
    shown = {frame.pts for frame in (first, *islice(frames, 30)) if frame.pts is not None}
    begun = range(min(shown), max(shown))
    return any(mark in begun and mark not in shown for mark in track.marks.tolist())


def _by_fields(track: Track) -> Track:
    """Drop keys that directly follow another: second fields, from which no picture can be made."""
    places = np.searchsorted(track.marks, track.keys)
    return replace(track, fields=True, keys=track.keys[np.diff(places, prepend=-2) > 1])


def _reordered_avi(container: InputContainer, stream: VideoStream) -> bool:
    """AVI has times of decoding alone; those of showing that FFmpeg guesses for these are wrong."""
    reordered = stream.codec_context.has_b_frames and stream.codec_context.name in {"h264", "hevc"}
    return container.format.name == "avi" and reordered


def _cut_off(stream: VideoStream, start: float, duration: float, cut: bool) -> tuple[str, ...]:
    """Return the warning due to a file that ends before its pictures do."""
    promised = float((stream.duration or 0) * (stream.time_base or 0))
    if tag := re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "")):
        promised = int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]) - start  # Matroska
    if not cut and promised <= duration + SLACK:
        return ()
    whole = f" of {promised:.1f} s" if promised > duration else ""
    return (f"damaged: pictures end at {duration:.1f} s{whole}; using what is there",)


def _count(path: str, number: int) -> NDArray[np.float64]:
    """Decode every picture and return the timestamps, NaN where there is none."""
    with open_file(path) as container:
        frames = pictures_of(container, stream_of(container, number))
        times = (float("nan") if frame.time is None else frame.time for frame in frames)
        return np.fromiter(times, np.float64)


# --- reading


class _Reader:
    """Walks forward through a file, by seeks where that saves work."""

    BEFORE, BEHIND = -(2**63), 2**63  # marks of no picture

    def __init__(self, track: Track) -> None:
        self._track = track
        self._keys = track.keys
        self._start()

    def close(self) -> None:
        self._container.close()

    def at(self, mark: int) -> VideoFrame | None:
        """Return the picture `mark`, or None if there is none; marks must ascend."""
        if self._mark < mark:
            self._approach(mark)
        before: tuple[int, VideoFrame | None] = (self.BEFORE, None)
        while self._mark < mark:
            before = (self._mark, self._frame)
            self._next()
        if self._mark == mark:
            return self._frame
        return before[1] if self._track.fields and self._follows(before[0], mark) else None

    def _follows(self, first: int, second: int) -> bool:
        """Say whether these two are neighbours, so that they may be the fields of one picture."""
        marks = self._track.marks
        return bool(np.searchsorted(marks, second) - np.searchsorted(marks, first) == 1)

    def _start(self) -> None:
        self._container = open_file(self._track.path)
        self._stream = stream_of(self._container, self._track.stream)
        self._run = pictures_of(self._container, self._stream)
        self._count = 0
        self._mark = self.BEFORE
        self._frame: VideoFrame | None = None

    def _next(self) -> None:
        self._frame = next(self._run, None)
        if self._frame is None:
            self._mark = self.BEHIND
        elif not len(self._track.keys):  # pictures go by number
            self._mark = self._count
            self._count += 1
        elif self._frame.pts is not None:
            self._mark = self._frame.pts

    def _approach(self, mark: int) -> None:
        """Move to a picture at or before `mark`, if going on from here would decode much more."""
        behind = int(np.searchsorted(self._keys, mark, "right"))
        if not behind:
            return
        marks = self._track.marks
        saved = np.searchsorted(marks, self._keys[behind - 1]) - np.searchsorted(marks, self._mark)
        if saved < WORTH_A_SEEK:
            return
        # A seek may land behind its target (MPEG-TS), and a key picture may not be decodable alone.
        for key in self._keys[max(behind - 2, 0) : behind][::-1]:
            if self._seek(int(key)) and self._mark <= mark:
                return
        # Seeks do not work in this file: from its beginning, and from here on without them.
        self.close()
        self._keys = self._keys[:0]
        self._start()

    def _seek(self, mark: int) -> bool:
        try:
            self._container.seek(mark, stream=self._stream)
        except av.FFmpegError:
            return False
        self._run = pictures_of(self._container, self._stream, from_key=True)
        self._next()
        return True


def _rgb(frame: VideoFrame) -> Pixels:
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def _turn(frame: VideoFrame) -> Turn:
    """Return how to turn this picture. To be asked once: side data makes reference cycles."""
    try:
        matrix = cast("Mapping[str, bytes]", frame.side_data)["DISPLAYMATRIX"]
    except KeyError:
        return UPRIGHT
    except ValueError:  # PyAV stumbles over kinds of side data newer than itself
        return turned_by(frame.rotation)
    return turn_of(np.frombuffer(matrix, np.int32))
