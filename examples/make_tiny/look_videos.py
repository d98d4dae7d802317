"""Draws test videos of every look, with questions about each: what the bundled model survives.

    python examples/make_tiny/look_videos.py looks --videos 5 --seed 1900
    malmm eval looks/data.jsonl --model tiny --frames 60 --memory 10 --beams 1 \\
        --repetition-penalty 1 --max-new-tokens 80

The scenes are those of `malmm synth --videos 5 --seed 1900`, the same ones in every look; the
kind of a question is the look of its video, so that the evaluation has a row for each. One frame
of each look is put together in looks/sheet.jpg.
"""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from looks import LARGE, Style, dark, grain, pattern, styled
from PIL import Image, ImageDraw

from malmm_cli.datasets.synthetic import Scene, World, caption, questions, write_mp4
from malmm_cli.datasets.tasks import task_as_json
from malmm_cli.types import Task

FPS = 4.0

# what differs from the plain look, and the frames a second where they are not FPS
LOOKS: dict[str, Callable[[random.Random], dict]] = {
    "plain": lambda chance: {},
    "bars 5 %": lambda chance: {"bars": (0.0, 0.05, 0.0, 0.05)},
    "letterbox": lambda chance: {"bars": (0.0, 0.125, 0.0, 0.125)},
    "pillarbox": lambda chance: {"bars": (0.125, 0.0, 0.125, 0.0)},
    "bars all round": lambda chance: {"bars": (0.08,) * 4},
    "dark": lambda chance: {"background": dark(chance)},
    "striped or chequered": lambda chance: {"background": pattern(chance)},
    "grainy": lambda chance: {"background": grain(chance)},
    "brightness 0.5": lambda chance: {"brightness": 0.5},
    "brightness 0.6": lambda chance: {"brightness": 0.6},
    "brightness 1.5": lambda chance: {"brightness": 1.5},
    "hue -30°": lambda chance: {"hue": -30.0},
    "hue +30°": lambda chance: {"hue": 30.0},
    "hue -15°": lambda chance: {"hue": -15.0},
    "hue +15°": lambda chance: {"hue": 15.0},
    "saturation 0.5": lambda chance: {"saturation": 0.5},
    "saturation 1.6": lambda chance: {"saturation": 1.6},
    "blur": lambda chance: {"blur": 0.015},
    "JPEG of quality 20": lambda chance: {"quality": 20},
    "80x60": lambda chance: {"size": (80, 60)},
    "1280x720": lambda chance: {"size": LARGE},
    "90x160, upright": lambda chance: {"size": (90, 160)},
    "120x120": lambda chance: {"size": (120, 120)},
    "1 frame a second": lambda chance: {"fps": 1.0},
    "30 frames a second": lambda chance: {"fps": 30.0},
}


def main(folder: Path, videos: int, seed: int) -> None:
    """Write the videos, their questions, and a sheet of the looks."""
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    world = World(videos=videos, seed=seed)
    lines, pictures = [], {}
    for look, differing in LOOKS.items():
        for k in range(videos):
            scene = world.scene(k)
            options = differing(random.Random(f"{look} {seed} {k}"))
            fps = options.pop("fps", FPS)
            style = Style(**options)
            name = f"videos/{look.replace(' ', '-')}-{seed}-{k}.mp4"
            times = np.arange(round(scene.seconds * fps)) / fps
            path = folder / name
            if not path.exists():
                write_mp4((_even(styled(scene, t, style)) for t in times), path, fps)
            if not k:
                first = scene.events[0]
                pictures[look] = styled(scene, (first.start + first.end) / 2, style)
            lines += [task_as_json(task) for task in _tasks(world, scene, look, k, name)]
        print(look, flush=True)
    (folder / "data.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    _sheet(pictures).save(folder / "sheet.jpg", quality=88)


def _even(image: Image.Image) -> np.ndarray:
    """Its pixels (H, W, 3) uint8, an odd last row and column left out: H.264 has none."""
    return np.asarray(image)[: image.height // 2 * 2, : image.width // 2 * 2]


def _tasks(world: World, scene: Scene, look: str, k: int, video: str) -> list[Task]:
    told = (scene.events[0].start, scene.events[-1].end)
    name, kind = f"{look}-{k}", f"{look}, caption"
    tasks = [Task(name, video, answers=(caption(scene),), kind=kind, evidence=told)]
    for number, one in enumerate(questions(scene, world.questions), start=1):
        about = {"answers": (one.answer,), "kind": look, "evidence": one.evidence}
        tasks.append(Task(f"{name}-{number}", video, one.question, **about))
    return tasks


def _sheet(pictures: dict[str, Image.Image], across: int = 5) -> Image.Image:
    """A small picture of each look with its name under it."""
    width, height, text = 160, 120, 16
    sheet = Image.new(
        "RGB", (across * width, -(-len(pictures) // across) * (height + text)), "white"
    )
    pen = ImageDraw.Draw(sheet)
    for k, (look, image) in enumerate(pictures.items()):
        x, y = k % across * width, k // across * (height + text)
        small = image.copy()
        small.thumbnail((width - 4, height - 4))
        sheet.paste(small, (x + (width - small.width) // 2, y + (height - small.height) // 2))
        pen.text((x + 4, y + height), look, fill="black")
    return sheet


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, default=5, help="of each look")
    parser.add_argument("--seed", type=int, default=1900)
    given = parser.parse_args()
    main(given.folder, given.videos, given.seed)
