"""Pillow, for animated WebP, which FFmpeg does not read, and photographs that EXIF data turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import ExifTags, Image, ImageOps, ImageSequence

from malmm_cli.media.geometry import UPRIGHT, Pixels
from malmm_cli.media.track import Track

__all__ = ["pictures", "probe", "turned"]

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def probe(path: str) -> Track | None:
    """Return the pictures of an image file, or None if Pillow does not take it for one."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            lengths = [_milliseconds(frame) for frame in _frames(image)]
            width, height = ImageOps.exif_transpose(image).size
            kind = str(image.format)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    ends = np.cumsum(lengths) / 1000
    seconds = np.concatenate([[0.0], ends[:-1]])
    return Track(
        path=path,
        decoder="pillow",
        width=width,
        height=height,
        duration=float(ends[-1]),
        source_start=0.0,
        seconds=seconds,
        container=kind,
        codec=kind,
        stream=0,
        turn=UPRIGHT,
        plain=True,
        counted=True,
        stamps=seconds,
        marks=np.arange(len(seconds)),
        keys=np.empty(0, np.int64),
        targets=np.empty(0, np.int64),
    )


def turned(path: str) -> bool:
    """Say whether this is an image whose EXIF data ask to turn it."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return bool(image.getexif().get(ExifTags.Base.Orientation, 1) != 1)
    except OSError:
        return False


def pictures(track: Track, indices: Sequence[int]) -> Iterator[tuple[int, Pixels]]:
    """Yield (index, upright pixels) for ascending `indices`."""
    wanted = set(indices)
    with Image.open(track.path, formats=FORMATS) as image:
        for index, frame in enumerate(_frames(image)):
            if index in wanted:
                yield index, np.asarray(ImageOps.exif_transpose(_eight_bits(frame)).convert("RGB"))


def _eight_bits(frame: Image.Image) -> Image.Image:
    """Return sixteen bits of grey as eight; convert() would clip them."""
    if not frame.mode.startswith("I"):
        return frame
    return Image.fromarray((np.asarray(frame) // 256).astype(np.uint8))


def _frames(image: Image.Image) -> Iterator[Image.Image]:
    """Yield the pictures of an animation; the pages of other formats are no pictures in time."""
    return iter(ImageSequence.Iterator(image)) if image.format == "WEBP" else iter([image])


def _milliseconds(frame: Image.Image) -> float:
    frame.load()
    return float(frame.info.get("duration", 0))
