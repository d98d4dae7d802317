"""What is true in each cell of a frame, as a perfect eye would write it."""

import random
from collections.abc import Sequence

import torch
from language import random_scene
from looks import Style, placed
from pictures import NAMELESS
from shape import GRID, IDLE
from torch import Tensor

from malmm_cli.datasets.synthetic import COLOURS, MOTIONS, SHAPES, Scene
from malmm_cli.datasets.synthetic.drawing import look
from malmm_cli.datasets.synthetic.signs import signed
from malmm_cli.datasets.synthetic.telling import NUMBERS

CENTRES = (torch.arange(GRID) + 0.5) / GRID
NEAR = 0.5 / GRID  # how far from a shape's edge the centre of a cell may be that it reaches into


def signed_scene(
    chance: random.Random, most: int, palette: Sequence[str] = COLOURS
) -> tuple[Scene, Tensor]:
    """As `random_scene`; in every second one a number stands under each shape."""
    scene, seconds = random_scene(chance, most, palette)
    return (signed(scene, chance) if chance.random() < 0.5 else scene), seconds


def covered(known: Tensor) -> Tensor:
    """The cells (N, GRID²) bool that a shape reaches into, by labels (N, 12) of `label`."""
    across = (CENTRES[None, None] - known[:, 3, None, None]) / (known[:, 5, None, None] + NEAR)
    down = (CENTRES[None, :, None] - known[:, 4, None, None]) / (known[:, 6, None, None] + NEAR)
    there = (known[:, 0] >= 0) & (known[:, 7] > 0.15)
    return ((across**2 + down**2) < 1).flatten(1) & there[:, None]


def written(known: Tensor, meaning: dict[str, Tensor]) -> Tensor:
    """What a perfect eye writes of frames with labels (N, 12): (N, GRID², C)."""
    numbers = [tuple(each) for each in known[:, [0, 1, 2, 11]].long().tolist()]
    told = {each: _told(*each, meaning) for each in set(numbers)}
    shown = torch.stack([told[each] for each in numbers])[:, None]
    return torch.where(covered(known)[..., None], shown, meaning[IDLE])


def frames_written(scene: Scene, seconds: Tensor, meaning: dict[str, Tensor]) -> Tensor:
    """The same of a scene's frames at `seconds` (T,), of any colour that has a name."""
    known, told = [], []
    for second in seconds.tolist():
        event = next((e for e in scene.events if e.start <= second < e.end), None)
        words = str(event).split() if event else [IDLE]
        words += [NUMBERS[event.number]] if event and event.number else []
        told.append(torch.stack([meaning[word] for word in words if word in meaning]).sum(0))
        place = (0.0,) * 5
        if event:
            there = look(event, (second - event.start) / (event.end - event.start))
            sides = placed(Style(), there.x, there.y, there.radius, there.radius)
            place = (*sides, there.opacity)
        known.append((0.0 if event else -1.0, 0.0, 0.0, *place))
    inside = covered(torch.tensor(known))[..., None]
    return torch.where(inside, torch.stack(told)[:, None], meaning[IDLE])


def _told(colour: int, shape: int, motion: int, number: int, meaning: dict[str, Tensor]) -> Tensor:
    """The sum of the words for a shape and the number under it; a colour of -1 means none."""
    if colour < 0:
        return meaning[IDLE]
    told = [SHAPES[shape], *MOTIONS[motion].split()]
    told += [] if colour == NAMELESS else [COLOURS[colour]]
    told += [NUMBERS[number]] if number else []
    return torch.stack([meaning[word] for word in told]).sum(0)
