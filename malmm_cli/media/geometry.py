"""Decoded pixels → the picture shown: upright, square pixels, any size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = [
    *("NO_MARGINS", "UPRIGHT", "Margins", "Pixels", "Turn", "cropped", "display_size"),
    *("on_white", "resize", "turn", "turn_of", "turned_by"),
]

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB
Turn = tuple[bool, bool, bool]  # swap rows and columns, then mirror left-right, then top-bottom
Margins = tuple[int, int, int, int]  # pixels to cut off: left, top, right, bottom
UPRIGHT: Turn = (False, False, False)
NO_MARGINS: Margins = (0, 0, 0, 0)


def turn_of(matrix: NDArray[np.int32]) -> Turn:
    """Return what a display matrix asks for: (9,), x' = m0 x + m3 y, y' = m1 x + m4 y.

    All eight turns and mirrorings by right angles; an angle between them counts as the nearest.
    """
    a, b, _, c, d = (int(value) for value in matrix[:5])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (False, a < 0, d < 0)
    return (True, c < 0, b < 0)


def turned_by(degrees: int) -> Turn:
    """Return the turn by `degrees`, anticlockwise, to the nearest right angle."""
    return ((False,) * 3, (True, False, True), (False, True, True), (True, True, False))[
        round(degrees / 90) % 4
    ]


def turn(pixels: Pixels, how: Turn) -> Pixels:
    """Return a view of `pixels`, turned."""
    swap, left_right, top_bottom = how
    if swap:
        pixels = pixels.transpose(1, 0, 2)
    if left_right:
        pixels = pixels[:, ::-1]
    if top_bottom:
        pixels = pixels[::-1]
    return pixels


def cropped(pixels: Pixels, margins: Margins) -> Pixels:
    """Return a view of what is left of `pixels` without the margins."""
    left, top, right, bottom = margins
    height, width = pixels.shape[:2]
    return pixels[top : height - bottom, left : width - right]


def display_size(width: int, height: int, aspect: float, how: Turn = UPRIGHT) -> tuple[int, int]:
    """Return (width, height) of the shown picture: upright, and one side grown to square pixels.

    `aspect` is the pixel aspect, width over height; 0 is unknown. Beyond 1:16 it is taken for an
    error in the file, which would otherwise ask for pictures of any size.
    """
    if 1 / 16 <= aspect <= 16:
        width, height = round(width * max(aspect, 1)), round(height / min(aspect, 1))
    return (height, width) if how[0] else (width, height)


def on_white(image: Image.Image) -> Pixels:
    """Return the pixels of an image, white where it is transparent."""
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    image = image.convert("RGBA")
    shown = Image.new("RGB", image.size, "white")
    shown.paste(image, mask=image.getchannel("A"))
    return np.asarray(shown)


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize to `size` = (width, height) in one step: bicubic, antialiased, clamped to 0..255."""
    if pixels.shape[1::-1] == size:
        return np.ascontiguousarray(pixels)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.array(image.resize(size, Image.Resampling.BICUBIC))
