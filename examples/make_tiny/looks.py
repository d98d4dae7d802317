"""How the pictures of a video look: bars, backgrounds, light, colours, sharpness, size."""

import colorsys
import io
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from malmm_cli.datasets.synthetic import Scene, picture
from malmm_cli.datasets.synthetic.drawing import PAINT, SIZE, Background, pale

SIDE = 64
SIZES = ((80, 60), (160, 120), (240, 180), (128, 72), (214, 120), (320, 180), (120, 120), (90, 160))
LARGE = (1280, 720)  # as slow to draw as fifty others, so rare

# to luma and two colour differences, and back: ITU-R BT.601
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB = np.linalg.inv(_YIQ)


@dataclass(frozen=True)
class Style:
    """How all pictures of one video look.

    `size` is (width, height) before `bars` are put around it, black ones, each as a share of the
    picture: left, top, right, bottom. `background` draws what is behind everything. `brightness`
    and `saturation` are factors, `hue` is in degrees; the radius of `blur` is a share of the
    height; `quality` is that of JPEG.
    """

    size: tuple[int, int] = SIZE
    bars: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    background: Background = pale
    brightness: float = 1.0
    hue: float = 0.0
    saturation: float = 1.0
    blur: float = 0.0
    quality: int = 85


def style_of(chance: random.Random, *, hard: bool = False) -> Style:
    """A style; a third are plain, most of the others differ from that in one way.

    With `hard` that is more often a background or strong colours, which are the hardest to see by.
    """
    style = Style(quality=chance.randint(70, 95))
    ways = chance.choices((0, 1, 2), (35, 45, 20))[0]
    for change in chance.sample(HARD_CHANGES if hard else CHANGES, ways):
        style = change(style, chance)
    return style


def shown(scene: Scene, second: float, style: Style, paint=PAINT) -> np.ndarray:
    """A picture as the model is given it, (SIDE, SIDE, 3) uint8."""
    image = styled(scene, second, style, paint)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def styled(scene: Scene, second: float, style: Style, paint=PAINT) -> Image.Image:
    """A picture in its full size, compressed, bars included."""
    pixels = picture(scene, second, style.size, paint=paint, background=style.background)
    if (style.brightness, style.hue, style.saturation) != (1.0, 0.0, 1.0):
        turned = pixels.astype(np.float32) @ _colours(style).T
        pixels = turned.round().clip(0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    if style.blur:
        image = image.filter(ImageFilter.GaussianBlur(style.blur * image.height))
    if any(style.bars):
        left, top, right, bottom = style.bars
        width = round(image.width / (1 - left - right))
        height = round(image.height / (1 - top - bottom))
        whole = Image.new("RGB", (width, height))
        whole.paste(image, (round(left * width), round(top * height)))
        image = whole
    file = io.BytesIO()
    image.save(file, "JPEG", quality=style.quality)
    return Image.open(file)


def placed(style: Style, x: float, y: float, wide: float, high: float) -> tuple[float, ...]:
    """Where in the shrunk picture a shape is: its middle and its radii, as shares of SIDE.

    `x`, `y` and `high` are shares of the picture without bars, `wide` of its height.
    """
    left, top, right, bottom = style.bars
    across, down = 1 - left - right, 1 - top - bottom
    width, height = style.size
    return left + x * across, top + y * down, wide * height / width * across, high * down


def _sized(style: Style, chance: random.Random) -> Style:
    return replace(style, size=LARGE if chance.random() < 0.02 else chance.choice(SIZES))


def _barred(style: Style, chance: random.Random) -> Style:
    """Bars on two sides, or around; mostly thin, or as letterbox and pillarbox have them."""
    across, down = (
        chance.uniform(0.02, 0.08) if chance.random() < 0.5 else chance.uniform(0.08, 0.2)
        for _ in range(2)
    )
    sides = chance.choice([(across, 0.0), (0.0, down), (across, down)])
    return replace(style, bars=(*sides, *sides))


def _backed(style: Style, chance: random.Random) -> Style:
    way = chance.choice((dark, dark, pattern, pattern, grain))
    return replace(style, background=way(chance))


def _coloured(style: Style, chance: random.Random) -> Style:
    """One of the three: together they could make any colour of any other."""
    way = chance.choice(("brightness", "brightness", "hue", "saturation"))
    if way == "brightness":
        return replace(style, brightness=chance.uniform(0.45, 1.55))
    if way == "hue":
        return replace(style, hue=chance.uniform(-32.0, 32.0))
    return replace(style, saturation=chance.uniform(0.5, 1.6))


def _strongly_coloured(style: Style, chance: random.Random) -> Style:
    """As `_coloured`, at the ends of its ranges."""
    way = chance.choice(("brightness", "hue", "hue", "saturation"))
    if way == "brightness":
        ends = chance.choice(((0.45, 0.6), (1.3, 1.55)))
        return replace(style, brightness=chance.uniform(*ends))
    if way == "hue":
        return replace(style, hue=chance.choice((-1, 1)) * chance.uniform(22.0, 32.0))
    return replace(style, saturation=chance.uniform(0.45, 0.6))


def _worn(style: Style, chance: random.Random) -> Style:
    if chance.random() < 0.5:
        return replace(style, blur=chance.uniform(0.005, 0.02))
    return replace(style, quality=chance.randint(15, 60))


CHANGES = (_sized, _barred, _backed, _coloured, _worn)
HARD_CHANGES = (*CHANGES, _backed, _backed, _strongly_coloured, _strongly_coloured)


def _colours(style: Style) -> np.ndarray:
    """The matrix (3, 3) that turns RGB as the style does."""
    angle = np.deg2rad(style.hue)
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    turn[1:] *= style.saturation
    return (style.brightness * (_RGB @ turn @ _YIQ)).astype(np.float32)


def _tone(chance: random.Random, low: float, high: float) -> np.ndarray:
    """A colour that is hardly one, (3,) float32 of 0 to 255."""
    rgb = colorsys.hsv_to_rgb(chance.random(), chance.uniform(0, 0.25), chance.uniform(low, high))
    return np.array(rgb, np.float32) * 255


def dark(chance: random.Random) -> Background:
    """Nearly black or dark grey, flat or fading; never what black shapes are painted in."""
    ranges = (0.0, 0.06) if chance.random() < 0.25 else (0.21, 0.45)

    def draw(inner: random.Random, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        first, second = _tone(inner, *ranges), _tone(inner, *ranges)
        fade = (x if inner.random() < 0.5 else y) * inner.choice((0.0, 1.0))
        return first + (second - first) * fade

    return _background(draw, chance)


def pattern(chance: random.Random) -> Background:
    """Stripes or checks, hard or soft, of two tones."""
    contrast = chance.uniform(0.05, 0.35)

    def draw(inner: random.Random, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        light = inner.uniform(0.35 + contrast, 1.0)
        first, second = _tone(inner, light, light), _tone(inner, light - contrast, light)
        angle, times = inner.uniform(0, np.pi), inner.uniform(3, 16)
        along = np.sin(2 * np.pi * times * (x * np.cos(angle) + y * np.sin(angle)))
        if inner.random() < 0.5:
            along = along * np.sin(2 * np.pi * times * (y * np.cos(angle) - x * np.sin(angle)))
        if inner.random() < 0.5:
            along = np.sign(along)
        return first + (second - first) * (along + 1) / 2

    return _background(draw, chance)


def grain(chance: random.Random) -> Background:
    """Noise that stands still: coarse and fine blots, like paper, stone or leaves."""
    contrast, cells = chance.uniform(8, 45), chance.choice((6, 12, 24, 48))

    def draw(inner: random.Random, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(inner.randrange(2**32)).normal(0, contrast, (cells, cells))
        image = Image.fromarray(noise.astype(np.float32))
        size = (x.shape[1], y.shape[0])
        blots = np.asarray(image.resize(size, Image.Resampling.BICUBIC))[..., None]
        return _tone(inner, 0.45, 0.95) + blots

    return _background(draw, chance)


def _background(
    draw: Callable[[random.Random, np.ndarray, np.ndarray], np.ndarray], chance: random.Random
) -> Background:
    """One that draws with a seed of its own, on a grid of shares: x (1, W, 1) and y (H, 1, 1)."""
    own = chance.randrange(2**32)

    @lru_cache(maxsize=8)
    def background(seed: int, size: tuple[int, int]) -> Image.Image:
        width, height = size
        x = np.linspace(0, 1, width, dtype=np.float32)[None, :, None]
        y = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
        pixels = np.broadcast_to(draw(random.Random(own + seed), x, y), (height, width, 3))
        return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))

    return background
