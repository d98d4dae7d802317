"""Decoding with PyAV, the default: read every packet's time, then seek to what is needed."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from malmm_cli.errors import MediaError
from malmm_cli.media.aperture import aperture_of
from malmm_cli.media.boxes import boxes_of
from malmm_cli.media.files import kind_of, shown
from malmm_cli.media.geometry import Pixels, cropped, display_size, turn
from malmm_cli.media.limits import MAX_PIXELS
from malmm_cli.media.look import has_alpha, how_to_turn, pixels_of
from malmm_cli.media.packets import (
    limit_of,
    open_file,
    picture_streams,
    pictures_of,
    seek,
    stream_of,
)
from malmm_cli.media.png import hides_grey
from malmm_cli.media.scan import Scan, scan
from malmm_cli.media.timeline import REORDERED, is_still
from malmm_cli.media.times import Times, times_of
from malmm_cli.media.track import Track, in_file_order

__all__ = ["pictures", "probe"]

SLACK = 1.0  # seconds that a header may promise too much
# codecs whose decoder can leave out a picture that no other refers to, and is exact in it
SPARING = {"h264", "hevc", "mpeg2video", "mpeg4"}
WORTH_A_SEEK = 12  # pictures; a seek throws away what the decoder's threads have begun


def probe(path: str, max_pixels: int = MAX_PIXELS) -> Track:
    """Scan the packets of `path`; raises MediaError if it shows no picture."""
    if kind_of(path) == "other" and hides_grey(path):
        raise _for_auto(path, "grey below 8 bits with a transparent value")
    with open_file(path, max_pixels) as container:
        numbers = picture_streams(path, container)
    for number in numbers:
        found = scan(path, number, max_pixels)
        if not found.shown.any():
            continue
        with open_file(path, max_pixels) as container:
            stream = stream_of(container, number)
            frames = pictures_of(container, stream)
            first = next(frames, None)
            if first is not None:
                if container.format.name == "ico" and stream.codec_context.name == "bmp":
                    raise _for_auto(path, "the mask of an icon")
                fields = first.interlaced_frame and _has_fields(found, first, frames)
                track = _track(path, container, stream, found, first)
                return _by_fields(track) if fields and not track.counted else track
    raise MediaError(f"{shown(path)}: no frame could be decoded", kind="NoPicture")


def pictures(
    track: Track, indices: Sequence[int], hardware: HWAccel | None = None
) -> Generator[tuple[int, Pixels]]:
    """Yield (index, upright pixels) for ascending `indices`; what cannot be decoded is left out."""
    for first, part in in_file_order(track):
        wanted = [index - first for index in indices if 0 <= index - first < len(part.marks)]
        if not wanted:
            continue
        reader = _Reader(part, wanted, hardware)
        try:
            for index in wanted:
                frame = reader.at(index)
                if frame is not None:
                    yield first + index, _upright(track, frame)
        finally:
            reader.close()


def _upright(track: Track, frame: VideoFrame) -> Pixels:
    """Return a picture as it is shown; one whose size changed in mid-file is not cropped."""
    pixels = pixels_of(frame)
    if (frame.width, frame.height) == track.coded:
        pixels = cropped(pixels, track.margins)
    return turn(pixels, track.turn)


# --- what a file says


def _for_auto(path: str, what: str) -> MediaError:
    """Return the error for transparency that FFmpeg does not know."""
    hint = "use --decoder auto"
    return MediaError(f"{shown(path)}: {what} is not supported", hint=hint, kind="Unsupported")


def _track(
    path: str, container: InputContainer, stream: VideoStream, found: Scan, first: VideoFrame
) -> Track:
    """Join the scan and the look of the first picture."""
    boxes = boxes_of(path) if container.format.name.startswith("mov,") else None
    times = times_of(path, boxes, container, stream, found)
    how = how_to_turn(first, stream.codec_context.name)
    coded = (first.width, first.height)
    aperture = aperture_of(path, boxes, container.format.name, stream, coded)
    left, top, right, bottom = aperture.margins
    width, height = first.width - left - right, first.height - top - bottom
    aspect = float(stream.sample_aspect_ratio or 0)
    if aperture.display:
        aspect = aperture.display[0] * height / (aperture.display[1] * width)
    width, height = display_size(width, height, aspect, how)
    only = len(times.seconds) == 1 and (container.format.name == "gif" or kind_of(path) == "heif")
    still = only or is_still(container.format.name)
    duration = 0.0 if still else float(times.seconds[-1] + times.gap)
    whole = len(times.marks) == len(found.stamps) and len(times.parts) == 1
    return Track(
        path=path,
        decoder="pyav",
        width=width,
        height=height,
        duration=duration,
        source_start=float(times.stamps[0]),
        seconds=times.seconds,
        warnings=_cut_off(stream, times, duration, found),
        container=container.format.name,
        codec=stream.codec_context.name,
        stream=stream.index,
        turn=how,
        alpha=has_alpha(first),
        margins=aperture.margins,
        coded=coded,
        max_pixels=limit_of(container),
        plain=found.plain and whole and len(container.streams.video) == 1,
        counted=times.counted,
        splices=times.splices,
        parts=times.parts,
        unit=float(stream.time_base or 1),
        stamps=times.stamps,
        marks=times.marks,
        keys=times.keys,
        targets=times.targets,
    )


def _has_fields(found: Scan, first: VideoFrame, frames: Iterator[VideoFrame]) -> bool:
    """Say whether, of the first second or so, packets have timestamps that no picture has."""
    if not found.timed:
        return False
    shown = {frame.pts for frame in (first, *islice(frames, 30)) if frame.pts is not None}
    begun = range(min(shown), max(shown))
    return any(stamp in begun and stamp not in shown for stamp in found.stamps.tolist())


def _by_fields(track: Track) -> Track:
    """Drop keys that directly follow another: second fields, from which no picture can be made."""
    first = np.diff(track.keys, prepend=-2) > 1
    return replace(track, fields=True, keys=track.keys[first], targets=track.targets[first])


def _cut_off(stream: VideoStream, times: Times, duration: float, found: Scan) -> tuple[str, ...]:
    """Return the warning due to a file that ends before its pictures do."""
    start = float(times.stamps[0])
    promised = float((stream.duration or 0) * (stream.time_base or 0))
    if tag := re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "")):
        promised = int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]) - start  # Matroska
    elif times.promised is not None:
        promised = times.promised
    elif start > 0:
        promised -= start  # some formats count from 0, not from the first picture
    if found.joined or found.splices is not None:
        promised = 0.0  # a guess of FFmpeg's, or from times that jump
    if found.left:
        return (f"frames end at {duration:.1f} s; another stream follows and is ignored",)
    if found.torn:
        number = len(found.stamps)
        return (f"damaged: {found.torn} of {number} packets are incomplete; frames may be wrong",)
    if times.lost:
        return (f"damaged: {times.lost} of {len(found.stamps)} packets hold no frame",)
    if not found.cut and promised <= duration + SLACK:
        return ()
    whole = f" of {promised:.1f} s" if promised > duration else ""
    return (f"damaged: frames end at {duration:.1f} s{whole}; using those",)


# --- reading


class _Reader:
    """Walks forward through a file, by seeks where that saves work.

    A picture is known by its index in the track; `_index` is that of `_frame`.
    """

    BEFORE, BEHIND = -1, 2**63  # where no picture is

    def __init__(self, track: Track, wanted: Sequence[int], hardware: HWAccel | None) -> None:
        self._track = track
        self._hardware = hardware
        self._wanted = set(wanted)
        self._order = np.argsort(track.marks, kind="stable")
        self._sorted = track.marks[self._order]
        self._early: dict[int, VideoFrame | None] = {}  # pictures that came before their turn
        self._keys, self._targets = track.keys, track.targets
        self._start()

    def close(self) -> None:
        self._run.close()  # which holds pictures, and this reader
        self._container.close()

    def at(self, index: int) -> VideoFrame | None:
        """Return the picture `index`, or None if there is none; indices must ascend."""
        if index in self._early:
            return self._early.pop(index)
        if self._index < index:
            self._approach(index)
        before: tuple[int, VideoFrame | None] = (self.BEFORE, None)
        while self._index < index:
            before = (self._index, self._frame)
            self._next()
        if self._index == index:
            return self._frame
        if not self._track.fields:
            return self._late(index)
        # two fields are one picture, which has the time of the first
        return before[1] if before[0] == index - 1 else None

    def _late(self, index: int) -> VideoFrame | None:
        """Look for a picture behind later ones: in some files a few times are in a wrong order."""
        while self._index < index + REORDERED:
            if self._index in self._wanted:
                self._early[self._index] = self._frame
            self._next()
            if self._index == index:
                return self._frame
        return None

    def _start(self) -> None:
        self._container = open_file(self._track.path, self._track.max_pixels, self._hardware)
        self._stream = stream_of(self._container, self._track.stream)
        self._run = self._pictures(from_key=False)
        self._count = 0
        self._index = self.BEFORE
        self._frame: VideoFrame | None = None

    def _pictures(self, *, from_key: bool) -> Generator[VideoFrame]:
        track = self._track
        sparing = not track.counted and not track.fields and track.codec in SPARING
        return pictures_of(
            self._container,
            self._stream,
            track.splices,
            from_key=from_key,
            wanted=self._wants if sparing else None,
        )

    def _wants(self, packet: Packet[VideoStream]) -> bool:
        """Say whether the picture in a packet is asked for, as far as that is known."""
        index = None if packet.pts is None else self._find(packet.pts)
        return index is None or index in self._wanted

    def _find(self, mark: int) -> int | None:
        at = int(np.searchsorted(self._sorted, mark))
        known = at < len(self._sorted) and self._sorted[at] == mark
        return int(self._order[at]) if known else None

    def _next(self) -> None:
        self._frame = next(self._run, None)
        if self._frame is None:
            self._index = self.BEHIND
            return
        mark = self._count if self._track.counted else self._frame.pts
        self._count += 1
        index = None if mark is None else self._find(mark)
        self._index = self._index if index is None else index

    def _approach(self, index: int) -> None:
        """Move to a picture at or before `index`, if going on from here would decode much more."""
        behind = int(np.searchsorted(self._keys, index, "right"))
        if not behind or self._keys[behind - 1] - self._index < WORTH_A_SEEK:
            return
        # A seek may land behind its target (MPEG-TS), and a key picture may not be decodable alone.
        for target in self._targets[max(behind - 2, 0) : behind][::-1].tolist():
            if self._seek(target) and self._index <= index:
                return
        # Seeks do not work in this file: from its beginning, and from here on without them.
        self.close()
        self._keys = self._keys[:0]
        self._start()

    def _seek(self, target: int) -> bool:
        if not seek(self._container, self._stream, target, self._track.splices):
            return False
        self._run = self._pictures(from_key=True)
        self._index = self.BEFORE
        self._next()
        return True
