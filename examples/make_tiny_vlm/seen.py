"""Stage 3: what the eye writes of whole videos, and drawing from it."""

import random
from pathlib import Path

import numpy as np
import torch
from cells import signed_scene
from pictures import PART, scene_of
from tongue import Draw, Seen
from training import keep

from malmm_cli.models.vlm.model import VisionLanguage

SEED = 1  # of the videos, as `make_pictures` has it


def eyed(model: VisionLanguage, pictures: Path, folder: Path, log=print) -> None:
    """Keep the rows (T, P, C) of all videos in float16; what is there already stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(pictures.glob("*.npz")):
        stored = folder / f"{path.stem}.pt"
        if stored.exists():
            continue
        with np.load(path) as drawn:
            frames, counts = torch.from_numpy(drawn["frames"]), drawn["counts"].tolist()
        seconds = torch.zeros(64).double()
        rows = [model.encode(part, seconds[: len(part)]).rows.half() for part in frames.split(64)]
        keep(torch.cat(rows).split(counts), stored)
        log(f"rows {path.stem}")


def watched(folder: Path) -> Draw:
    """Videos as the eye wrote them, in any order."""
    paths = sorted(folder.glob("*.pt"))
    parts = [torch.load(path, weights_only=True) for path in paths]
    numbers = [SEED * 1_000_000 + int(path.stem) * PART for path in paths]

    def draw(chance: random.Random, most: int, frames: int) -> Seen:
        while True:
            part = chance.randrange(len(parts))
            index = chance.randrange(len(parts[part]))
            rows = parts[part][index]
            if frames <= len(rows) <= 4 * frames:
                break
        scene, seconds = scene_of(numbers[part] + index, signed_scene)
        picked = torch.linspace(0, len(rows) - 1, frames).round().long()
        return scene, seconds[picked] * (1 - 1e-6), rows[picked].float()

    return draw
