"""Decoding with NVDEC on NVIDIA GPUs, through PyAV.

Its pictures may differ from the software's by a level or two, so that features of the one are not
taken for those of the other. What it cannot decode, software does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import cache

import av
from av.codec import Codec
from av.codec.hwaccel import HWAccel

from malmm_cli.media import pyav
from malmm_cli.media.geometry import Pixels
from malmm_cli.media.limits import MAX_PIXELS
from malmm_cli.media.packets import open_file, pictures_of, stream_of
from malmm_cli.media.track import Track

__all__ = ["available", "pictures", "preferred", "probe"]

# AV1 is missing: PyAV decodes it with dav1d, which knows no GPU
CODECS = {"h264", "hevc", "mpeg2video", "mpeg4", "vc1", "vp8", "vp9"}


def probe(path: str, max_pixels: int = MAX_PIXELS) -> Track:
    """As with PyAV, which also reads files that NVDEC cannot, with a warning."""
    track = pyav.probe(path, max_pixels)
    if not available():
        why = "finds no NVIDIA GPU"
    elif not _fits(track):
        why = f"cannot decode this {track.codec}"
    else:
        return replace(track, decoder="nvdec")
    return replace(track, warnings=(*track.warnings, f"nvdec {why}; using pyav"))


def preferred(track: Track) -> Track:
    """Return the track, to be read by NVDEC where there is one that decodes it."""
    return replace(track, decoder="nvdec") if available() and _fits(track) else track


def pictures(track: Track, indices: Sequence[int]) -> Iterator[tuple[int, Pixels]]:
    """Yield (index, upright pixels) for ascending `indices`; by PyAV from the first that fails."""
    left = list(indices)
    with suppress(av.FFmpegError), closing(pyav.pictures(track, indices, _hardware())) as found:
        for index, pixels in found:
            if index != left[0]:
                break
            left.pop(0)
            yield index, pixels
    if left:
        yield from pyav.pictures(track, left)


@cache
def available() -> bool:
    """Say whether there is an NVIDIA GPU that decodes."""
    try:
        _hardware().create(Codec("h264", "r"))
    except (av.FFmpegError, NotImplementedError, ValueError):
        return False
    return True


def _hardware() -> HWAccel:
    return HWAccel("cuda", allow_software_fallback=False)


def _fits(track: Track) -> bool:
    """Say whether the GPU decodes the first picture."""
    if track.codec not in CODECS or track.fields or track.alpha:
        return False
    with (
        suppress(av.FFmpegError),
        open_file(track.path, track.max_pixels, _hardware()) as container,
    ):
        return next(pictures_of(container, stream_of(container, track.stream)), None) is not None
    return False
