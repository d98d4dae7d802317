"""Scenes → pictures, by Pillow: a shape on a soft background, and camera noise."""

from __future__ import annotations

import colorsys
import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from malmm_cli.datasets.synthetic.scene import Distractor, Event, Scene

__all__ = ["PAINT", "SIZE", "Background", "Look", "look", "lowest", "pale", "picture", "render"]

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
Points = list[tuple[float, float]]
Paint = tuple[int, int, int]
Background = Callable[[int, tuple[int, int]], Image.Image]

SIZE = (160, 120)  # width and height

SUPERSAMPLING = 4  # shapes are drawn this much larger and averaged down: smooth edges

PAINT: dict[str, Paint] = {
    "black": (38, 38, 44),
    "blue": (40, 88, 214),
    "green": (44, 150, 60),
    "orange": (242, 134, 20),
    "pink": (246, 132, 190),
    "purple": (126, 52, 170),
    "red": (212, 34, 40),
    "teal": (16, 150, 150),
    "yellow": (238, 206, 20),
}

# The digits 1 to 4 as strokes between points (across, down) of a box 2 wide and 3 high.
STROKES: tuple[Points, ...] = (
    [(0.3, 0.7), (1, 0), (1, 3)],
    [(0, 0.6), (0.5, 0), (1.5, 0), (2, 0.6), (2, 1), (0, 3), (2, 3)],
    [(0, 0), (2, 0), (1, 1.2), (2, 1.9), (1.6, 2.8), (0.8, 3), (0, 2.6)],
    [(1.5, 3), (1.5, 0), (0, 2.1), (2, 2.1)],
)
DIGIT = 0.75  # its height, as a share of its shape's radius
BELOW = 1.2  # so many radii below the middle of its shape it begins

TRAVEL = 0.44  # of width or height: how far a shape moves
TRAIL = ((0.16, 0.22), (0.08, 0.42))  # what was so much of the event ago is still so visible


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


def _moon() -> Points:
    """A crescent: three quarters of a circle, and an arc back inside it."""
    outer = [math.radians(angle) for angle in range(45, 316, 6)]
    inner = [math.radians(angle) for angle in range(290, 69, -6)]
    return [(math.cos(a), math.sin(a)) for a in outer] + [
        (0.45 + 0.74 * math.cos(a), 0.74 * math.sin(a)) for a in inner
    ]


def _cross() -> Points:
    thick = 0.3
    corner = [(thick, -0.95), (thick, -thick), (0.95, -thick), (0.95, thick)]
    half = [*corner, (thick, thick), (thick, 0.95)]
    return half + [(-x, -y) for x, y in half]


# outline around the origin, y downwards, no further than about 1 from it
OUTLINES: dict[str, Points] = {
    "cross": _cross(),
    "heart": _heart(),
    "moon": _moon(),
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "star": _polygon(10, inner=0.42),
    "triangle": _polygon(3),
}


@dataclass(frozen=True)
class Look:
    """Where a shape is, as shares of width and height, how large, how turned, how visible."""

    x: float
    y: float
    radius: float
    angle: float
    opacity: float = 1.0
    hollow: bool = False
    lit: bool = False  # what is hollow has a small one of its kind in its middle


def picture(
    scene: Scene,
    second: float,
    size: tuple[int, int] = SIZE,
    *,
    paint: Mapping[str, Paint] = PAINT,
    background: Background | None = None,
) -> Picture:
    """What the scene shows at a second, (H, W, 3) uint8; `size` is (width, height).

    `paint` gives the names of colours their RGB; `background` draws one of a seed and a size.
    """
    image = _backdrop(scene, second, size, background or pale)
    for disc in scene.distractors:
        if disc.start <= second < disc.end:
            _pass(image, disc, (second - disc.start) / (disc.end - disc.start))
    for event in scene.events:
        if event.start <= second < event.end:
            done = (second - event.start) / (event.end - event.start)
            _draw(image, event, done, paint[event.colour])
    pixels = np.asarray(image)
    if scene.light:
        bright = 1 + scene.light * math.sin(2 * math.pi * second / scene.period + scene.phase)
        pixels = (pixels * np.float32(bright)).round().clip(0, 255).astype(np.uint8)
    if not scene.noise:
        return pixels
    # a seed of its own for every moment: pictures do not depend on which were drawn before
    chance = np.random.default_rng([scene.seed % 2**63, round(second * 1000)])
    grain = chance.normal(0.0, scene.noise, (size[1], size[0], 1)).astype(np.float32)
    return (pixels + grain).round().clip(0, 255).astype(np.uint8)


def render(scene: Scene, fps: float, size: tuple[int, int] = SIZE) -> Iterator[Picture]:
    """Yield rint(seconds · fps) pictures (H, W, 3) uint8, at k/fps seconds."""
    for k in range(round(scene.seconds * fps)):
        yield picture(scene, k / fps, size)


def look(event: Event, done: float) -> Look:
    """How the event's shape looks when the share `done` of it, 0 … 1, is over."""
    x, y, radius, angle = event.x, event.y, event.radius, event.angle
    away = (done - 0.5) * TRAVEL
    match event.motion:
        case "moves right":
            return Look(x + away, y, radius, angle)
        case "moves left":
            return Look(x - away, y, radius, angle)
        case "falls":
            return Look(x, y + away, radius, angle)
        case "rises":
            return Look(x, y - away, radius, angle)
        case "grows":
            return Look(x, y, radius * (0.45 + 0.8 * done), angle)
        case "vanishes":
            return Look(x, y, radius, angle, opacity=0.85 - 0.75 * done)
        case "spins":
            return Look(x, y, radius, angle + 3 * math.pi * done)
        case "blinks":
            return Look(x, y, radius, angle, hollow=True, lit=int(done * 9) % 2 == 0)
    raise ValueError(f"nothing {event.motion}")


def lowest(event: Event) -> float:
    """How far down the number under the event's shape comes, as a share of the height."""
    ends = (look(event, 0.0), look(event, 1.0))
    return max(shown.y + shown.radius * BELOW for shown in ends) + event.radius * DIGIT


def _backdrop(
    scene: Scene, second: float, size: tuple[int, int], background: Background
) -> Image.Image:
    """The background at a second; it is the caller's to draw on."""
    cut = bisect_right(scene.cuts, second) - 1
    if not scene.drift:
        return background(scene.backgrounds[cut], size).copy()
    first, before, after = (
        background(scene.backgrounds[k], size)
        for k in (0, cut, min(cut + 1, len(scene.backgrounds) - 1))
    )
    begin, end = scene.cuts[cut], [*scene.cuts, scene.seconds][cut + 1]
    here = Image.blend(before, after, (second - begin) / (end - begin) if end > begin else 0.0)
    return Image.blend(first, here, scene.drift)


def _pass(image: Image.Image, disc: Distractor, done: float) -> None:
    """Put a disc where it is after the share `done` of its way from one side to the other."""
    width, height = image.size
    radius = disc.radius * height
    way = width + 2 * radius
    x = (width + radius - way * done) if disc.leftwards else (way * done - radius)
    y = disc.y * height
    side = math.ceil(2 * radius) + 2
    left, top = round(x - side / 2), round(y - side / 2)
    mask = Image.new("L", (side * SUPERSAMPLING, side * SUPERSAMPLING))
    corners = [(x - left, -1), (y - top, -1), (x - left, 1), (y - top, 1)]
    box = [(middle + sign * radius) * SUPERSAMPLING for middle, sign in corners]
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    image.paste((disc.grey,) * 3, (left, top), mask.reduce(SUPERSAMPLING))


def _draw(image: Image.Image, event: Event, done: float, paint: Paint) -> None:
    """Put the event's shape where it is, over a fading trail of where it was."""
    for ago, visible in TRAIL:
        if done > ago:
            _paste(image, event.shape, look(event, done - ago), paint, visible)
    shown = look(event, done)
    _paste(image, event.shape, shown, paint, 1.0)
    if event.number:
        _number(image, event, shown, paint)


def _number(image: Image.Image, event: Event, shown: Look, paint: Paint) -> None:
    """Write the event's number under its shape, as visible as that is, of a size that stays."""
    width, height = image.size
    unit = event.radius * height * DIGIT / 3
    wide, high = math.ceil(2 * unit) + 4, math.ceil(3 * unit) + 4
    left = round(shown.x * width - wide / 2)
    top = round((shown.y + shown.radius * BELOW) * height)
    mask = Image.new("L", (wide * SUPERSAMPLING, high * SUPERSAMPLING))
    points = [
        ((2 + u * unit) * SUPERSAMPLING, (2 + v * unit) * SUPERSAMPLING)
        for u, v in STROKES[event.number - 1]
    ]
    thick = max(round(0.6 * unit * SUPERSAMPLING), SUPERSAMPLING)
    ImageDraw.Draw(mask).line(points, fill=round(255 * shown.opacity), width=thick, joint="curve")
    image.paste(paint, (left, top), mask.reduce(SUPERSAMPLING))


def _paste(image: Image.Image, shape: str, shown: Look, paint: Paint, visible: float) -> None:
    width, height = image.size
    radius = shown.radius * height
    side = math.ceil(2 * radius) + 2
    left, top = round(shown.x * width - side / 2), round(shown.y * height - side / 2)
    middle = (shown.x * width - left, shown.y * height - top)
    cosine, sine = math.cos(shown.angle), math.sin(shown.angle)

    def placed(scale: float) -> Points:
        reach = radius * scale * SUPERSAMPLING
        return [
            (
                middle[0] * SUPERSAMPLING + reach * (u * cosine - v * sine),
                middle[1] * SUPERSAMPLING + reach * (u * sine + v * cosine),
            )
            for u, v in OUTLINES[shape]
        ]

    mask = Image.new("L", (side * SUPERSAMPLING, side * SUPERSAMPLING))
    pen = ImageDraw.Draw(mask)
    opaque = round(255 * shown.opacity * visible)
    pen.polygon(placed(1.0), fill=opaque)
    if shown.hollow:
        pen.polygon(placed(0.66), fill=0)
    if shown.lit:
        pen.polygon(placed(0.4), fill=opaque)
    image.paste(paint, (left, top), mask.reduce(SUPERSAMPLING))


@lru_cache(maxsize=8)
def pale(seed: int, size: tuple[int, int]) -> Image.Image:
    """Two pale colours that fade into each other, and a few large soft spots."""
    chance = random.Random(seed)
    width, height = size
    first, second, third = (
        np.array(
            colorsys.hsv_to_rgb(
                chance.random(), chance.uniform(0.02, 0.22), chance.uniform(0.78, 0.98)
            ),
            dtype=np.float32,
        )
        for _ in range(3)
    )
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x / width - 0.5, y / height - 0.5
    angle = chance.uniform(0, 2 * math.pi)
    fade = 0.5 + 0.7 * (x * math.cos(angle) + y * math.sin(angle))
    pixels = first + (second - first) * fade.clip(0, 1)[..., None]
    for _ in range(chance.randint(0, 3)):
        far = (x - chance.uniform(-0.5, 0.5)) ** 2 + (y - chance.uniform(-0.5, 0.5)) ** 2
        spot = np.exp(-far / chance.uniform(0.01, 0.08))
        pixels = pixels + (third - pixels) * (0.8 * spot)[..., None]
    return Image.fromarray((pixels * 255).round().clip(0, 255).astype(np.uint8))
