"""Decoding with decord, only on request.

decord 0.6 is from 2021. It silently gives wrong pictures from MPEG-TS and PS, AVI, WMV, edit lists
and open groups of pictures, can hang in native code, and decodes ahead without bound while nothing
is read. So it gets only what it does well, in batches, in a process of its own that can be killed,
and its count and times must agree with PyAV's packet scan.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from threading import Timer

import numpy as np

from malmm_cli.errors import MediaError, UsageError
from malmm_cli.media import pyav
from malmm_cli.media.files import shown
from malmm_cli.media.geometry import NO_MARGINS, Pixels
from malmm_cli.media.limits import MAX_PIXELS
from malmm_cli.media.packets import open_file, packets_of, stream_of
from malmm_cli.media.track import Track
from malmm_cli.processes.children import start_script

__all__ = ["pictures", "probe"]

CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
CODECS = {"h264", "hevc", "vp8", "libvpx", "vp9", "libvpx-vp9", "mpeg4"}
BATCH = 2**27  # bytes of pictures it may hold
IDR = 5  # the kind of unit in H.264 that nothing after it looks back beyond
TIMEOUT = 60.0  # seconds for one picture
HEADER = struct.Struct("=qqdqq")  # pictures in the file, index, seconds, height, width


def probe(path: str, max_pixels: int = MAX_PIXELS) -> Track:
    """Scan with PyAV; raises MediaError for a file that decord is known to get wrong."""
    if find_spec("decord") is None:
        hint = (
            "use --decoder auto; decord exists for Linux and Windows on x86-64: pip install decord"
        )
        raise UsageError("decord is not installed", hint=hint)
    track = pyav.probe(path, max_pixels)
    if track.container not in CONTAINERS or track.codec not in CODECS:
        raise _refusal(path, f"does not support {track.codec} in {track.container.split(',')[0]}")
    if track.alpha or track.margins != NO_MARGINS:
        raise _refusal(path, "ignores transparency and cropping")
    mirrored = sum(track.turn) % 2 == 1
    sound = track.plain and track.as_stamped and len(track.keys) and not track.warnings
    if not sound or mirrored or not _restarts(track):
        raise _refusal(path, "returns wrong frames from cut, damaged, mirrored or open-GOP files")
    return replace(track, decoder="decord")


def _restarts(track: Track) -> bool:
    """Say whether decoding can start cleanly at each key picture.

    H.264 also has keys from which pictures only recover in time (intra refresh), and decord takes
    them for clean ones.
    """
    if track.codec != "h264":
        return True
    with open_file(track.path, track.max_pixels) as container:
        packets = packets_of(container, stream_of(container, track.stream))
        return all(IDR in _units(bytes(packet)) for packet in packets if packet.is_keyframe)


def _units(packet: bytes) -> set[int]:
    """Return the kinds of the units in an H.264 packet, each behind its length in four bytes."""
    kinds, start = set(), 0
    while start + 4 < len(packet):
        kinds.add(packet[start + 4] & 31)
        start += 4 + int.from_bytes(packet[start : start + 4], "big")
    return kinds


def pictures(track: Track, indices: Sequence[int]) -> Iterator[tuple[int, Pixels]]:
    """Yield (index, upright pixels) for ascending `indices`; raises MediaError when in doubt."""
    request = {
        "path": os.path.abspath(track.path),
        "indices": list(indices),
        "batch": max(1, BATCH // (track.width * track.height * 3)),
        # more threads make its VP9 decoder fail
        "threads": 1 if "vp9" in track.codec else 0,
    }
    process = start_script(Path(__file__).with_name("decord_child.py"))
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(json.dumps(request).encode())
        for index in indices:
            yield index, _receive(track, process, index)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _receive(track: Track, process: subprocess.Popen[bytes], index: int) -> Pixels:
    assert process.stdout is not None
    watchdog = Timer(TIMEOUT, process.kill)
    watchdog.start()
    try:
        header = process.stdout.read(HEADER.size)
        if len(header) < HEADER.size:
            raise _refusal(track.path, "failed")
        length, given, seconds, height, width = HEADER.unpack(header)
        data = process.stdout.read(height * width * 3)
    finally:
        watchdog.cancel()
    nearest = int(np.abs(track.seconds - seconds).argmin())
    if length != len(track.seconds) or not given == nearest == index:
        raise _refusal(track.path, "and PyAV disagree about the frames")
    if len(data) < height * width * 3:
        raise _refusal(track.path, "failed")
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)


def _refusal(path: str, why: str) -> MediaError:
    return MediaError(f"{shown(path)}: decord {why}", hint="use --decoder auto", kind="NoPicture")
