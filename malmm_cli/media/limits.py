"""Limits on picture size, checked in headers before decoding."""

from __future__ import annotations

from malmm_cli.errors import MediaError
from malmm_cli.media.files import shown

__all__ = ["MAX_PIXELS", "PADDING", "beyond", "check_size"]

MAX_PIXELS = 100_000_000
PADDING = 2**22  # pixels; FFmpeg, when it keeps to a limit, counts what it pads lines with


def check_size(path: str, width: int, height: int, max_pixels: int) -> None:
    """Raise MediaError for a picture that is larger than that."""
    if width * height > max_pixels:
        size, most = f"{width} × {height}", f"{max_pixels / 1e6:g} million pixels"
        raise beyond(path, "TooLarge", size, most)


def beyond(path: str, kind: str, given: str, most: str) -> MediaError:
    """Return the error for a file that asks for more than it may."""
    return MediaError(
        f"{shown(path)}: {given} exceeds the limit of {most}",
        hint="raise the limit with the --max-… options of `malmm batch`",
        kind=kind,
    )
