"""The world as arrays: scenes, and their frames as the model is given them."""

import io
import random
from pathlib import Path

import numpy as np
from language import random_scene
from PIL import Image

from malmm_cli.synthetic import COLOURS, MOTIONS, SHAPES, Scene, picture
from malmm_cli.synthetic.drawing import look

SIDE = 64
PART = 100  # videos in one file


def make_pictures(folder: Path, videos: int, log=print, seed: int = 1) -> None:
    """Draw so many videos into files of PART each; what is there already is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in range(videos // PART):
        path = folder / f"{part:04d}.npz"
        if path.exists():
            continue
        drawn = [draw(seed * 1_000_000 + part * PART + k) for k in range(PART)]
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(
                file,
                frames=np.concatenate(drawn),
                counts=np.array(list(map(len, drawn))),
            )
        partial.replace(path)
        log(f"pictures {part + 1}/{videos // PART}")


def scene_of(number: int, most: int = 14):
    """The scene of a video by its number, and the seconds of its frames."""
    return random_scene(random.Random(f"picture {number}"), most)


def draw(number: int) -> np.ndarray:
    """Frames (T, SIDE, SIDE, 3) uint8 of a video."""
    scene, seconds = scene_of(number)
    times = (seconds * (1 - 1e-6)).tolist()
    return np.stack([shrunk(picture(scene, t), quality=70 + number % 26) for t in times])


def glimpses(chance: random.Random, busy: int, idle: int) -> tuple[np.ndarray, np.ndarray]:
    """So many frames with and without a shape, four of a scene; and labels, (N, 8) float32."""
    frames: list[np.ndarray] = []
    labels: list[tuple[float, ...]] = []
    wanted = {True: busy, False: idle}
    while any(wanted.values()):
        scene, _ = random_scene(chance, 14)
        event = chance.choice(scene.events)
        times = [chance.uniform(event.start, event.end) for _ in range(3)]
        for second in (*times, chance.uniform(0, scene.seconds)):
            known = label(scene, second)
            if wanted[known[0] >= 0]:
                wanted[known[0] >= 0] -= 1
                frames.append(shrunk(picture(scene, second), quality=chance.randint(70, 95)))
                labels.append(known)
    return np.stack(frames), np.array(labels, np.float32)


def shrunk(pixels: np.ndarray, quality: int) -> np.ndarray:
    """A picture as a video would give it: a little worse for its compression, and of SIDE."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def label(scene: Scene, second: float) -> tuple[float, ...]:
    """Colour, shape and motion by number (-1 for none); middle and radii as shares; opacity."""
    for event in scene.events:
        if event.start <= second < event.end:
            shown = look(event, (second - event.start) / (event.end - event.start))
            names = (
                COLOURS.index(event.colour),
                SHAPES.index(event.shape),
                MOTIONS.index(event.motion),
            )
            return (*names, shown.x, shown.y, shown.radius * 0.75, shown.radius, shown.opacity)
    return (-1, -1, -1, 0, 0, 0, 0, 0)
