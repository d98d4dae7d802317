"""AVIF and HEIC: pictures in MP4 boxes, as items (a photograph, or its tiles) and as tracks."""

from __future__ import annotations

from av.stream import Disposition
from av.video.stream import VideoStream

from malmm_cli.errors import MediaError
from malmm_cli.media.files import shown

__all__ = ["sequence_first"]

ALPHA = (b"cicp:systems:auxiliary:alpha\0", b"hevc:2015:auxid:1\0")
BEGINNING = 2**16  # bytes; what is said of items comes first


def sequence_first(path: str, streams: list[VideoStream]) -> list[VideoStream]:
    """Return the streams that may be shown: the animation if there is one, else the photograph.

    Raises MediaError for what lies in several streams at once.
    """
    with open(path, "rb") as file:
        beginning = file.read(BEGINNING)
    hint = "use --decoder auto for AVIF; convert other files to PNG first"
    if any(name in beginning for name in ALPHA):
        message = f"{shown(path)}: transparency stored as a separate image is not supported"
        raise MediaError(message, hint=hint, kind="Unsupported")
    tracks = [stream for stream in streams if stream.frames > 1]
    whole = [stream for stream in streams if not stream.disposition & Disposition.dependent]
    if not (tracks or whole):
        message = f"{shown(path)}: tiled photographs are not supported"
        raise MediaError(message, hint=hint, kind="Unsupported")
    return tracks or whole
