"""A seeded little world of moving coloured shapes, drawn to arrays and written as H.264.

`scenario` decides what happens and when, `render` draws it, `write_mp4` stores it: what a video
shows is therefore known to the second, without a single labelled file.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from malmm_cli.errors import OutputError, UsageError

__all__ = ["COLOURS", "MOTIONS", "SHAPES", "Event", "render", "scenario", "write_mp4"]

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
Points = list[tuple[float, float]]

SUPERSAMPLING = 4  # shapes are drawn this much larger and averaged down: smooth edges
SKY, GROUND = (247, 240, 226), (196, 216, 224)  # the background fades from one to the other

COLOURS = {
    "blue": (58, 110, 196),
    "green": (74, 160, 98),
    "orange": (238, 140, 52),
    "pink": (232, 122, 160),
    "purple": (128, 88, 176),
    "red": (214, 66, 62),
    "yellow": (240, 194, 60),
}


def _polygon(corners: int, inner: float = 1.0) -> Points:
    """Place corners on the unit circle, the first on top; every second one `inner` from 0, 0."""
    angles = [2 * math.pi * k / corners for k in range(corners)]
    return [
        (radius * math.sin(angle), -radius * math.cos(angle))
        for radius, angle in zip([1.0, inner] * corners, angles, strict=False)
    ]


def _heart() -> Points:
    angles = [2 * math.pi * k / 64 for k in range(64)]
    waves = [(13, 1), (-5, 2), (-2, 3), (-1, 4)]
    return [
        (math.sin(a) ** 3, -sum(size * math.cos(k * a) for size, k in waves) / 16) for a in angles
    ]


# outline around the origin, y downwards, no further than 1 from it
SHAPES: dict[str, Points] = {
    "circle": _polygon(64),
    "heart": _heart(),
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "star": _polygon(10, inner=0.45),
    "triangle": _polygon(3),
}

# share of the event that is over, 0 … 1 → place of the centre as shares of width and height
MOTIONS: dict[str, Callable[[float], tuple[float, float]]] = {
    "downwards": lambda done: (0.5, 0.2 + 0.6 * done),
    "from left to right": lambda done: (0.15 + 0.7 * done, 0.5),
    "from right to left": lambda done: (0.85 - 0.7 * done, 0.5),
    "in a circle": lambda done: (
        0.5 + 0.25 * math.sin(2 * math.pi * done),
        0.5 - 0.27 * math.cos(2 * math.pi * done),
    ),
    "in waves": lambda done: (0.15 + 0.7 * done, 0.5 - 0.2 * math.sin(4 * math.pi * done)),
    "upwards": lambda done: (0.5, 0.8 - 0.6 * done),
}


@dataclass(frozen=True)
class Event:
    """Between `start` and `end` seconds a shape of one colour moves."""

    start: float
    end: float
    shape: str
    colour: str
    motion: str


def scenario(seed: int, seconds: float) -> list[Event]:
    """One event after the other, about five seconds each, until the time is filled.

    The same seed gives the same events on every machine, and no look repeats the one before it.
    """
    chance = random.Random(seed)
    count = max(1, round(seconds / 5))
    weights = [chance.uniform(0.8, 1.2) for _ in range(count)]
    ends = [round(seconds * done / sum(weights), 2) for done in accumulate(weights)]
    looks = [sorted(names) for names in (SHAPES, COLOURS, MOTIONS)]
    last: tuple[str, ...] = ("", "", "")
    events = []
    for start, end in zip([0.0, *ends], ends, strict=False):
        last = tuple(
            chance.choice([name for name in names if name != before])
            for names, before in zip(looks, last, strict=True)
        )
        events.append(Event(start, end, *last))
    return events


def render(
    events: Iterable[Event], seconds: float, fps: float, size: tuple[int, int] = (320, 240)
) -> Iterator[Picture]:
    """Yield rint(seconds · fps) pictures (H, W, 3) uint8 at k/fps; `size` is (width, height)."""
    events = list(events)
    background = _background(size)
    for k in range(round(seconds * fps)):
        now = k / fps
        picture = background.copy()
        for event in events:
            if event.start < now < event.end:
                _draw(picture, event, now)
        yield np.asarray(picture)


def write_mp4(frames: Iterable[Picture], path: str | os.PathLike[str], fps: float) -> None:
    """Write pictures (H, W, 3) uint8 as H.264 in MP4, index first; whole or not at all."""
    path = Path(path)
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise UsageError("a video needs at least one frame")
    if first.shape[0] % 2 or first.shape[1] % 2:
        raise UsageError(f"width and height must be even, not {first.shape[1]}x{first.shape[0]}")
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial")
    try:
        _encode(chain([first], frames), partial, fps, *first.shape[:2])
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _background(size: tuple[int, int]) -> Image.Image:
    """Paint a calm vertical gradient."""
    fade = Image.linear_gradient("L").resize(size)
    return Image.composite(Image.new("RGB", size, GROUND), Image.new("RGB", size, SKY), fade)


def _draw(picture: Image.Image, event: Event, now: float) -> None:
    """Put the event's shape, and a soft shadow under it, where they are at `now`."""
    width, height = picture.size
    x, y = MOTIONS[event.motion]((now - event.start) / (event.end - event.start))
    # it grows out of nothing in the first half second and shrinks away in the last
    presence = min(1.0, 2 * (now - event.start), 2 * (event.end - now))
    radius = 0.16 * min(width, height) * presence * (2 - presence)
    outline = SHAPES[event.shape]
    shadow = [(x * width + radius * u, y * height + radius * (v + 0.12)) for u, v in outline]
    body = [(x * width + radius * u, y * height + radius * v) for u, v in outline]
    picture.paste((120, 130, 140), None, _mask(shadow, picture.size, opacity=0.3))
    picture.paste(COLOURS[event.colour], None, _mask(body, picture.size))


def _mask(points: Points, size: tuple[int, int], opacity: float = 1.0) -> Image.Image:
    """Say how much of every pixel the polygon covers, 0 … 255 times `opacity`."""
    large = Image.new("L", (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING))
    corners = [(u * SUPERSAMPLING, v * SUPERSAMPLING) for u, v in points]
    ImageDraw.Draw(large).polygon(corners, fill=round(255 * opacity))
    return large.reduce(SUPERSAMPLING)


def _encode(frames: Iterable[Picture], path: Path, fps: float, height: int, width: int) -> None:
    import av  # heavy, and needed only here

    rate = Fraction(fps).limit_denominator(1001)
    with av.open(os.fspath(path), "w", format="mp4", options={"movflags": "faststart"}) as file:
        stream = file.add_stream("libx264", rate=rate, options={"crf": "22", "preset": "slow"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for k, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = k, 1 / rate
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
