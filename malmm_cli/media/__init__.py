"""From a path to pictures and their times: `probe` once, then `read`.

Backends are imported when needed, so that importing this package costs nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from malmm_cli.errors import MediaError, UsageError
from malmm_cli.media.files import check, is_text, kind_of, shown
from malmm_cli.media.inventory import decoders
from malmm_cli.media.limits import MAX_PIXELS, check_size
from malmm_cli.settings import DECODERS
from malmm_cli.text.words import known_names
from malmm_cli.types import Frame, MediaInfo

if TYPE_CHECKING:
    from malmm_cli.media.track import Track

__all__ = ["DECODERS", "Reader", "decoders", "probe", "read"]


class Reader(Protocol):
    """An opener of files and reader of pictures: this package, or a `Sandbox` around it."""

    def probe(self, path: str | os.PathLike[str], decoder: str = ...) -> MediaInfo:
        """As `probe` below."""

    def read(
        self,
        info: MediaInfo,
        seconds: Sequence[float],
        size: tuple[int, int] | None = ...,
        on_warning: Callable[[str], None] | None = ...,
    ) -> Iterator[Frame]:
        """As `read` below."""


def probe(
    path: str | os.PathLike[str], decoder: str = "auto", max_pixels: int = MAX_PIXELS
) -> MediaInfo:
    """Find the pictures of a file and their times, without decoding them where that is possible.

    `auto` is PyAV, on the GPU where NVDEC can, then what else may know the file: Pillow for images,
    an ffmpeg program for the rest. A still image is a video of one picture that lasts 0 s. A
    picture larger than `max_pixels` is refused before it is decoded.

    Raises UsageError for an unknown decoder and MediaError for a file that shows no picture; the
    error's `kind` is one of Missing, Folder, Empty, Unreadable, NotAVideo, CutOff, SoundOnly,
    CoverOnly, Playlist, NoPicture, Unsupported, TooLarge.
    """
    if decoder not in DECODERS:
        raise UsageError(f"unknown decoder {decoder!r}", hint=known_names(decoder, DECODERS))
    begun = time.perf_counter()
    path = os.fspath(path)
    check(path)
    if kind_of(path) != "movie":
        from malmm_cli.media import pillow, png

        png.check_text(path)
        pillow.check_header(path, max_pixels)
    backend = import_module(f"malmm_cli.media.{decoder}") if decoder != "auto" else None
    try:
        track: Track = (backend.probe if backend else _probe_auto)(path, max_pixels)
    except MediaError as error:
        if error.kind == "NoPicture":
            from malmm_cli.media import pillow

            pillow.check_header(path, max_pixels, unread=True)
            if backend and not error.hint and pillow.probe(path, max_pixels):
                error.hint = "--decoder auto reads it"
        raise
    check_size(path, track.width, track.height, max_pixels)
    return replace(track, probe_seconds=time.perf_counter() - begun)


def _probe_auto(path: str, max_pixels: int) -> Track:
    from malmm_cli.media import apng, nvdec, pyav

    try:
        track = pyav.probe(path, max_pixels)
    except MediaError as error:
        if error.kind not in {"NotAVideo", "NoPicture", "Unsupported"}:
            raise
        from malmm_cli.media import pillow

        return pillow.probe(path, max_pixels) or _probe_program(path, max_pixels, error)
    if kind_of(path) == "movie":
        return nvdec.preferred(track)
    from malmm_cli.media import pillow  # its formats' modules, which no movie needs

    if apng.is_odd(path) or (len(track.seconds) == 1 and pillow.turned(path)):
        return pillow.probe(path, max_pixels) or track
    return nvdec.preferred(track)


def _probe_program(path: str, max_pixels: int, failure: MediaError) -> Track:
    from malmm_cli.media import ffmpeg

    if failure.kind == "Unsupported":  # programs older than that do not even notice
        raise failure
    if failure.kind == "NotAVideo" and is_text(path):  # no program makes pictures of that
        raise failure
    try:
        return ffmpeg.probe(path, max_pixels)
    except UsageError:  # there is no such program
        raise failure from None


def read(
    info: MediaInfo,
    seconds: Sequence[float],
    size: tuple[int, int] | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> Iterator[Frame]:
    """Yield the pictures at `seconds`, ascending values out of `info.seconds`, one at a time.

    `size` = (width, height) resizes each to exactly that, bicubic and antialiased, aspect ratio not
    kept; None gives the size of the display. `info` must come from `probe`.

    A picture that cannot be decoded is left out, and `on_warning` is told so once, at the end.
    Raises MediaError if nothing can be decoded.
    """
    import numpy as np

    from malmm_cli.media.geometry import resize
    from malmm_cli.media.track import Track

    assert isinstance(info, Track), "info must come from probe"
    wanted = np.unique(np.searchsorted(info.seconds, seconds)).tolist()
    missing = set(wanted)
    backend = import_module(f"malmm_cli.media.{info.decoder}")
    for index, pixels in backend.pictures(info, wanted):
        missing.discard(index)
        yield Frame(
            seconds=float(info.seconds[index]),
            source_seconds=float(info.stamps[index]),
            pixels=resize(pixels, size or (info.width, info.height)),
        )
    if wanted and len(missing) == len(wanted):
        message = f"{shown(info.path)}: no frame could be decoded ({info.codec})"
        raise MediaError(message, kind="NoPicture")
    if missing and on_warning and not info.warnings:
        on_warning(_damage(info, wanted, missing))


def _damage(info: MediaInfo, wanted: Sequence[int], missing: set[int]) -> str:
    """Return the one warning about all pictures left out."""
    found = [index for index in wanted if index not in missing]
    before = [index for index in found if index < min(missing)]
    after = [index for index in found if index > max(missing)]
    begin = info.seconds[before[-1]] if before else 0.0
    if not after:
        whole = info.duration
        return f"damaged: frames end at {begin:.1f} s of {whole:.1f} s; using those"
    end = info.seconds[after[0]]
    lost = f"{len(missing)} of {len(wanted)} frames cannot be decoded"
    return f"damaged between {begin:.1f} s and {end:.1f} s: {lost}"
