"""The world as arrays: scenes, and their frames as the model is given them."""

import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from language import random_scene
from looks import Style, placed, shown, style_of
from torch import Tensor

from malmm_cli.datasets.synthetic import COLOURS, MOTIONS, SHAPES, Scene
from malmm_cli.datasets.synthetic.drawing import PAINT, look

PART = 100  # videos in one file
MOST = 14  # events
NAMELESS = len(COLOURS)
FOREIGN = 60  # steps of 256, in a straight line
Scenes = Callable[[random.Random, int], tuple[Scene, Tensor]]


def make_pictures(
    folder: Path, videos: int, log=print, seed: int = 1, *, scenes: Scenes = random_scene
) -> None:
    """Draw so many videos into files of PART each; what is there already is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in range(videos // PART):
        path = folder / f"{part:04d}.npz"
        if path.exists():
            continue
        drawn = [draw(seed * 1_000_000 + part * PART + k, scenes) for k in range(PART)]
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(
                file,
                frames=np.concatenate(drawn),
                counts=np.array(list(map(len, drawn))),
            )
        partial.replace(path)
        log(f"pictures {part + 1}/{videos // PART}")


def scene_of(number: int, scenes: Scenes = random_scene) -> tuple[Scene, Tensor]:
    """The scene of a video by its number, and the seconds of its frames."""
    return scenes(random.Random(f"picture {number}"), MOST)


def draw(number: int, scenes: Scenes = random_scene) -> np.ndarray:
    """Frames (T, SIDE, SIDE, 3) uint8 of a video."""
    scene, seconds = scene_of(number, scenes)
    style = style_of(random.Random(f"style {number}"), hard=True)
    return np.stack([shown(scene, t, style) for t in (seconds * (1 - 1e-6)).tolist()])


def glimpses(
    chance: random.Random,
    busy: int,
    idle: int,
    *,
    hard: bool = False,
    scenes: Scenes = random_scene,
) -> tuple[np.ndarray, np.ndarray]:
    """So many frames with and without a shape, four of a scene; and labels, (N, 12) float32.

    With `hard` more of them have a look that is hard to see by, see `style_of`. In every second
    scene no colour has a name: what a shape does is then to be told whatever its colour. None is
    near one with a name, so combinations that are held out stay unseen.
    """
    frames: list[np.ndarray] = []
    labels: list[tuple[float, ...]] = []
    wanted = {True: busy, False: idle}
    while any(wanted.values()):
        scene, _ = scenes(chance, MOST)
        style = style_of(chance, hard=hard)
        paint = PAINT if chance.random() < 0.5 else dict.fromkeys(PAINT, _nameless(chance))
        event = chance.choice(scene.events)
        times = [chance.uniform(event.start, event.end) for _ in range(3)]
        for second in (*times, chance.uniform(0, scene.seconds)):
            known = label(scene, second, style, paint)
            if wanted[known[0] >= 0]:
                wanted[known[0] >= 0] -= 1
                frames.append(shown(scene, second, style, paint))
                labels.append(known)
    return np.stack(frames), np.array(labels, np.float32)


def _nameless(chance: random.Random) -> tuple[int, int, int]:
    """A colour that differs from each that has a name by at least FOREIGN, and is not pale."""
    while True:
        red, green, blue = rgb = tuple(chance.randrange(20, 250) for _ in range(3))
        if min(rgb) < 130 and all(math.dist(rgb, known) >= FOREIGN for known in PAINT.values()):
            return red, green, blue


def label(scene: Scene, second: float, style: Style, paint=PAINT) -> tuple[float, ...]:
    """Colour, shape and motion by number (-1 for none); middle and radii as shares; opacity; RGB;
    the number under the shape.

    NAMELESS is the number of a colour that is painted otherwise than PAINT has it.
    """
    for event in scene.events:
        if event.start <= second < event.end:
            there = look(event, (second - event.start) / (event.end - event.start))
            rgb = paint[event.colour]
            names = (
                COLOURS.index(event.colour) if rgb == PAINT[event.colour] else NAMELESS,
                SHAPES.index(event.shape),
                MOTIONS.index(event.motion),
            )
            place = placed(style, there.x, there.y, there.radius, there.radius)
            rgb_shares = [value / 255 for value in rgb]
            return (*names, *place, there.opacity, *rgb_shares, event.number)
    return (-1, -1, -1, *[0.0] * 9)
