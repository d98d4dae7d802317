"""Decoding with the ffmpeg program: the fallback for what PyAV cannot read.

It needs FFmpeg 5.1 or newer: the system's, or the one in the extra `malmm[ffmpeg]`.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from queue import SimpleQueue
from threading import Thread
from typing import IO

import ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from malmm_cli.errors import MediaError, UsageError
from malmm_cli.media import pyav
from malmm_cli.media.files import PLAYLISTS, TEXTS, kind_of, nameless, shown
from malmm_cli.media.geometry import (
    NO_MARGINS,
    UPRIGHT,
    Pixels,
    cropped,
    display_size,
    on_white,
    turn,
)
from malmm_cli.media.limits import MAX_PIXELS, PADDING, check_size
from malmm_cli.media.packets import ONE_BY_ONE
from malmm_cli.media.scan import longest_still
from malmm_cli.media.timeline import clock, is_still
from malmm_cli.media.track import Track, in_file_order

__all__ = ["pictures", "probe", "program"]

# What one command line selects: Windows ends a command at 32,767 characters.
AT_ONCE = 400
WORTH_A_SEEK = 100  # pictures
MOV = "mov,"  # MP4 and the like
SHOW = "showinfo=checksum=0"
UNIT = re.compile(r"config in time_base: (\d+)/(\d+)")
SHOWN = re.compile(r"\bn: *\d+ pts: *(-?\d+|NOPTS) .* fmt:(\S+) .*sar:(\d+)/(\d+) s:(\d+)x(\d+) ")
TRANSPARENT = re.compile(r"rgba|bgra|argb|abgr|pal8|ya8|ya16|yuva|gbrap")  # as FFmpeg calls forms
LIBRARIES = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # its own decoders leave out transparency
INPUT = re.compile(r"^Input #0, (\S+), from", re.M)
BEYOND = re.compile(r"Picture size (\d+)x(\d+) exceeds specified max pixel count")
USED = re.compile(r"Stream #0:(\d+) -> #0:0 \((\w+)")  # of those, the one shown


def probe(path: str, max_pixels: int = MAX_PIXELS) -> Track:
    """Take what PyAV finds out, but the program's own times if it shows more pictures, or fewer."""
    program()
    try:
        track = pyav.probe(path, max_pixels)
    except MediaError as error:
        if error.kind not in {"NotAVideo", "NoPicture", "CutOff"}:
            raise
        return _watch(path, max_pixels, error)
    if track.as_stamped and (track.container.startswith(MOV) or _same_clock(track)):
        return replace(track, decoder="ffmpeg")
    failure = MediaError(f"{shown(path)}: no frame could be decoded", kind="NoPicture")
    watched = _watch(path, max_pixels, failure, track)
    own = ["marks", "keys", "targets"]
    if len(watched.seconds) != len(track.seconds):
        own += ["seconds", "stamps", "duration", "source_start"]
    taken = {name: getattr(watched, name) for name in own}
    return replace(track, decoder="ffmpeg", counted=True, fields=False, splices=None, **taken)


def pictures(track: Track, indices: Sequence[int]) -> Iterator[tuple[int, Pixels]]:
    """Yield (index, pixels at display size) for ascending `indices`, but for undecodable ones."""
    for first, part in in_file_order(track):
        wanted = [index - first for index in indices if 0 <= index - first < len(part.marks)]
        for begin in range(0, len(wanted), AT_ONCE):
            for index, pixels in _found(part, wanted[begin : begin + AT_ONCE]):
                yield first + index, pixels


def _found(track: Track, wanted: Sequence[int]) -> Iterator[tuple[int, Pixels]]:
    """Yield what is found of `wanted` in one part of a track, behind a seek where that works."""
    if not track.counted and wanted[0] > WORTH_A_SEEK:
        with closing(_select(track, wanted, _start(track, wanted[0]))) as found:
            head = next(found, None)
            if head is not None and head[0] == wanted[0]:
                yield head
                yield from found
                return
    # nothing to seek to, or the seek landed behind its target: from the beginning
    yield from _select(track, wanted, None)


def program() -> str:
    """Path of an ffmpeg program: the system's, or the extra's; UsageError where there is none."""
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise UsageError(
            "no ffmpeg program found",
            hint="install FFmpeg 5.1 or newer, or run `pip install 'malmm[ffmpeg]'`",
        ) from error


# --- one run of the program


@dataclass(frozen=True)
class _Shown:
    """What the program says of a picture it shows; `seconds` is NaN where it knows no time."""

    seconds: float
    alpha: bool
    aspect: float
    size: tuple[int, int]


class _Run:
    """The program at work: raw pictures on stdout, a line about each on stderr."""

    def __init__(
        self,
        path: str,
        filters: str,
        stream: int | str | None = None,
        start: float | None = None,
        *,
        source: Mapping[str, object],
        **output: str,
    ) -> None:
        # filters that are rebuilt where the size changes would count from 0 again
        source = {"protocol_whitelist": "file", "reinit_filter": 0, **source}
        if start is not None:
            source |= {"seek_timestamp": 1, "noaccurate_seek": None, "ss": f"{start:.6f}"}
        # without a number the program chooses the stream
        which = {"an": None, "sn": None, "dn": None} if stream is None else {"map": f"0:{stream}"}
        options = ["-nostdin", "-hide_banner", "-nostats", "-loglevel", "info", "-copyts"]
        with nameless(path) as (address, files):
            command = ffmpeg.input(address, **source).output(
                "pipe:", vf=filters, fps_mode="passthrough", **which, **output
            )
            self._process = subprocess.Popen(
                ffmpeg.compile(command, cmd=[program(), *options]),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=files,
            )
        self.shown: SimpleQueue[_Shown | None] = SimpleQueue()  # None at the end
        self.lines: list[str] = []  # the first of what else it says
        self._reader = Thread(target=self._listen, args=(self._process.stderr,), daemon=True)
        self._reader.start()

    def read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.read(size)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _listen(self, pipe: IO[bytes]) -> None:
        unit = 1.0
        for raw in pipe:
            line = raw.decode("utf-8", "replace")
            if found := UNIT.search(line):
                unit = int(found[1]) / int(found[2])
            elif found := SHOWN.search(line):
                stamp, form, *rest = found.groups()
                up, down, width, height = map(int, rest)
                seconds = float("nan") if stamp == "NOPTS" else int(stamp) * unit
                alpha, aspect = bool(TRANSPARENT.match(form)), up / down if down else 0.0
                self.shown.put(_Shown(seconds, alpha, aspect, (width, height)))
            elif len(self.lines) < 100:
                self.lines.append(line)
        self.shown.put(None)


# --- times


def _same_clock(track: Track) -> bool:
    """Say whether the first picture that the program shows is at a time that PyAV knows."""
    run = _Run(track.path, SHOW, _stream(track), source=_source(track), format="null", vframes="1")
    try:
        first = run.shown.get()
    finally:
        run.close()
    known = track.marks * track.unit
    return first is not None and bool((np.abs(known - first.seconds) < 1e-3).any())


def _watch(path: str, max_pixels: int, failure: MediaError, known: Track | None = None) -> Track:
    """Decode everything once, for the times; raises `failure` if there is no picture.

    `known` is what PyAV says of the file.
    """
    options = _source(known) if known else {"max_pixels": max_pixels + PADDING}
    stream = _stream(known) if known else None
    run = _Run(path, SHOW, stream, source=options, format="null")
    try:
        seen = list(iter(run.shown.get, None))
    finally:
        run.close()
    lines = "".join(run.lines)
    if not seen and (size := BEYOND.search(lines)):
        check_size(path, int(size[1]), int(size[2]), max_pixels)
    source, used = INPUT.search(lines), USED.search(lines)
    if not seen or source is None or used is None or source[1] in PLAYLISTS | TEXTS:
        raise failure
    rate = re.search(rf"Stream #0:{used[1]}\b.*, ([\d.]+) fps", lines)
    stamps = np.array([picture.seconds for picture in seen])
    seconds, gap = clock(stamps, float(rate[1]) if rate else 25.0, longest_still(source[1]))
    stamps = np.where(np.isnan(stamps), seconds, stamps)
    width, height = display_size(*seen[0].size, seen[0].aspect)
    return Track(
        path=path,
        decoder="ffmpeg",
        width=width,
        height=height,
        duration=0.0 if is_still(source[1]) else float(seconds[-1]) + gap,
        source_start=float(stamps[0]),
        seconds=seconds,
        container=source[1],
        codec=used[2],
        stream=int(used[1]),
        turn=UPRIGHT,
        plain=False,
        counted=True,
        alpha=any(picture.alpha for picture in seen),
        max_pixels=max_pixels,
        stamps=stamps,
        marks=np.arange(len(stamps)),
        keys=np.empty(0, np.int64),
        targets=np.empty(0, np.int64),
    )


# --- pictures


def _select(
    track: Track, indices: Sequence[int], start: float | None
) -> Generator[tuple[int, Pixels]]:
    """Let the program pick out the pictures `indices`, and yield those that come."""
    name, places = ("n", track.marks) if track.counted else ("t", track.marks * track.unit)
    slack = float(np.diff(places).min()) / 3 if len(places) > 1 else 1e-3
    ranges = [(places[index] - slack, places[index] + slack) for index in indices]
    form, depth = ("rgba", 4) if track.alpha else ("rgb24", 3)
    # what is hidden must not mix with what is seen: then `read` resizes what is left
    raw = track.alpha or track.margins != NO_MARGINS
    width, height = (track.width, track.height)[:: -1 if track.turn[0] else 1]
    scale = "scale" if raw else f"scale={width}:{height}"
    # what comes before a key picture may lack what it refers to
    since = "1" if start is None else "gt(st(0,ld(0)+key),0)"
    filters = f"select='{since}*{_among(name, ranges)}',{scale},format={form},{SHOW}"
    output = {"format": "rawvideo", "pix_fmt": form}
    run = _Run(track.path, filters, _stream(track), start, source=_source(track), **output)
    order = iter(indices)
    try:
        while (picture := run.shown.get()) is not None:
            shape = (*picture.size[::-1], depth)
            if len(data := run.read(math.prod(shape))) < math.prod(shape):
                return
            if not track.counted:  # some may be missing: go by time
                index = int(np.abs(places - picture.seconds).argmin())
            else:
                index = next(order)
            pixels = np.frombuffer(data, np.uint8).reshape(shape)
            yield index, _seen(track, pixels)
    finally:
        run.close()


def _start(track: Track, index: int) -> float:
    """Return a time to seek to for a picture: a seek may land behind the last key before it."""
    behind = int(np.searchsorted(track.keys, index, "right"))
    return float(track.marks[track.keys[behind - 2] if behind > 1 else index]) * track.unit


def _source(track: Track) -> dict[str, object]:
    """Return the options with which the program reads the file."""
    options: dict[str, object] = {"max_pixels": track.max_pixels + PADDING}
    if track.turn != UPRIGHT:
        options["noautorotate"] = None  # done here: versions differ in what they know of turns
    if track.container == "gif":
        options["min_delay"] = 1  # old versions make 0.1 s of 0.01 s; PyAV's does not
    if track.container.startswith(MOV):
        options["ignore_editlist"] = 1  # as PyAV opens it
    if track.container == "mpegts":
        options["merge_pmt_versions"] = 1  # as PyAV opens it
    if track.codec in ONE_BY_ONE:
        options["thread_type"] = "slice"
    if track.alpha and track.codec in LIBRARIES:
        options["vcodec"] = LIBRARIES[track.codec]
    return options


def _stream(track: Track) -> int | str:
    if len(track.seconds) > 1 and kind_of(track.path) == "heif":
        return "m:language"  # a track has one; items have none, and some versions no number
    return track.stream


def _seen(track: Track, pixels: NDArray[np.uint8]) -> Pixels:
    """Return what is seen of a picture as the program shows it."""
    if track.alpha:
        pixels = on_white(Image.fromarray(pixels))
    uncut = pixels.shape[1::-1] == track.coded  # newer programs cut by themselves
    return turn(cropped(pixels, track.margins) if uncut else pixels, track.turn)


def _among(name: str, ranges: Sequence[tuple[float, float]]) -> str:
    """Return an expression, true where `name` lies in one of the ascending `ranges`.

    Halved again and again: a flat sum of a hundred terms is more than FFmpeg's parser takes, and
    this one also costs a picture few comparisons.
    """
    if len(ranges) == 1:
        low, high = ranges[0]
        return f"between({name},{low:.6f},{high:.6f})"
    half = len(ranges) // 2
    middle = (ranges[half - 1][1] + ranges[half][0]) / 2
    left, right = _among(name, ranges[:half]), _among(name, ranges[half:])
    return f"if(lt({name},{middle:.6f}),{left},{right})"
