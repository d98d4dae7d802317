"""Decoding with Pillow: AVIF, animated WebP, icons, photographs rotated by EXIF."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import islice
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps
from PIL.WebPImagePlugin import WebPImageFile

from malmm_cli.media import apng
from malmm_cli.media.geometry import UPRIGHT, Pixels, on_white
from malmm_cli.media.limits import MAX_PIXELS, beyond, check_size
from malmm_cli.media.png import with_palette
from malmm_cli.media.track import Track

__all__ = ["check_header", "pictures", "probe", "turned"]

FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
for _format in FORMATS:  # makes Pillow know it
    import_module(f"PIL.{_format.title().replace('Webp', 'WebP')}ImagePlugin")

# of these only the header is read, and only where FFmpeg says nothing; the modules they are in
SIZED = {"DDS": "Dds", "JPEG2000": "Jpeg2K", "PCX": "Pcx", "PSD": "Psd", "QOI": "Qoi"}
SIZED |= {"SGI": "Sgi", "SUN": "Sun", "TGA": "Tga"}
ANIMATED = {"AVIF", "GIF", "PNG", "WEBP"}  # other formats have pages instead of an animation
FAULTS = (OSError, SyntaxError, ValueError, EOFError)  # of broken files
USUAL = 100  # milliseconds; browsers show what asks for less than the shortest as long as that


def check_header(path: str, max_pixels: int, *, unread: bool = False) -> None:
    """Raise MediaError if this is an image that says it is larger than that.

    `unread` is for files that no decoder could read: more formats are tried, some of which have no
    distinct first bytes.
    """
    if unread:
        for name in SIZED.values():
            import_module(f"PIL.{name}ImagePlugin")
    try:
        with _opened(path, SIZED if unread else FORMATS) as image:
            if image is not None:
                check_size(path, *image.size, max_pixels)
    except Image.DecompressionBombError:  # Pillow's own limit is higher
        raise beyond(path, "TooLarge", "its size", f"{max_pixels / 1e6:g} million pixels") from None


def probe(path: str, max_pixels: int = MAX_PIXELS) -> Track | None:
    """Return the pictures of an image file, or None if Pillow does not take it for one."""
    check_header(path, max_pixels)
    try:
        with _opened(path) as image:
            if image is None:
                return None
            lengths = _lengths(image)
            width, height = _upright(image).size
            kind = str(image.format)
    except FAULTS:
        return None
    ends = np.cumsum([length if length >= apng.SHORTEST else USUAL for length in lengths]) / 1000
    seconds = np.concatenate([[0.0], ends[:-1]])
    return Track(
        path=path,
        decoder="pillow",
        width=width,
        height=height,
        duration=float(ends[-1]) if len(seconds) > 1 else 0.0,
        source_start=0.0,
        seconds=seconds,
        container=kind,
        codec=kind,
        stream=0,
        turn=UPRIGHT,
        plain=True,
        stamps=seconds,
        marks=np.arange(len(seconds)),
        keys=np.empty(0, np.int64),
        targets=np.empty(0, np.int64),
    )


def turned(path: str) -> bool:
    """Say whether this is an image whose EXIF data ask to turn it."""
    with suppress(*FAULTS), _opened(path) as image:
        return image is not None and image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return False


def pictures(track: Track, indices: Sequence[int]) -> Iterator[tuple[int, Pixels]]:
    """Yield (index, upright pixels) for ascending `indices`, up to the first that is broken."""
    wanted = set(indices)
    with suppress(*FAULTS), _opened(track.path) as image:
        frames = islice(_frames(image), indices[-1] + 1) if image and wanted else ()
        for index, frame in enumerate(frames):
            if index in wanted:
                yield index, on_white(_upright(_eight_bits(frame)))


# --- Pillow's functions without their warnings


@contextmanager
def _opened(path: str, formats: Iterable[str] = FORMATS) -> Iterator[ImageFile.ImageFile | None]:
    """Open an image as Pillow does, without its warnings about size: the limit is ours."""
    with open(path, "rb") as raw:
        file = with_palette(raw)
        yield next((image for name in formats if (image := _as_format(file, path, name))), None)


def _as_format(file: BinaryIO, path: str, name: str) -> ImageFile.ImageFile | None:
    make, accepts = Image.OPEN[name]
    file.seek(0)
    if accepts is not None and accepts(file.read(16)) is not True:
        return None
    file.seek(0)
    with suppress(*FAULTS), _quietly():
        image = make(file, path)
        if isinstance(image, WebPImageFile):
            image.rawmode = image._mode = "RGBA"  # it is transparent where no frame was drawn
        return image
    return None


@contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _frames(image: ImageFile.ImageFile) -> Iterator[Image.Image]:
    """Yield the pictures of an animation, each whole."""
    with _quietly():
        count = getattr(image, "n_frames", 1) if image.format in ANIMATED else 1
    if image.format == "PNG" and count > 1:
        yield from apng.pictures(str(image.filename))
        return
    for number in range(count):
        with _quietly():
            image.seek(number)
            image.load()
        yield image


def _lengths(image: ImageFile.ImageFile) -> list[float]:
    """Return how long each picture is shown, in milliseconds."""
    if image.format == "PNG" and (lengths := apng.lengths(str(image.filename))):
        return lengths
    if image.format == "WEBP":
        lengths = _webp_lengths(image)
        if len(lengths) == getattr(image, "n_frames", 1):
            return lengths
    return [float(frame.info.get("duration", 0)) for frame in _frames(image)]


def _webp_lengths(image: ImageFile.ImageFile) -> list[float]:
    """Return them from the frames' heads, since Pillow would decode all to tell."""
    lengths: list[float] = []
    with open(image.filename, "rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            size = int.from_bytes(head[4:], "little")
            body = file.read(16) if head[:4] == b"ANMF" else b""
            if body:
                lengths.append(int.from_bytes(body[12:15], "little"))
            file.seek(size + size % 2 - len(body), 1)
    return lengths


def _upright(image: Image.Image) -> Image.Image:
    with _quietly():
        return ImageOps.exif_transpose(image)


def _eight_bits(frame: Image.Image) -> Image.Image:
    """Return sixteen bits of grey as eight; convert() would clip them."""
    if not frame.mode.startswith("I"):
        return frame
    return Image.fromarray((np.asarray(frame) // 256).astype(np.uint8))
