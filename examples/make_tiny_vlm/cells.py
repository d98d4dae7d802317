"""What is true in each cell of a frame, as a perfect eye would write it."""

import torch
from looks import Style, placed
from pictures import NAMELESS
from shape import GRID, IDLE
from torch import Tensor

from malmm_cli.datasets.synthetic import COLOURS, MOTIONS, SHAPES, Scene
from malmm_cli.datasets.synthetic.drawing import look

CENTRES = (torch.arange(GRID) + 0.5) / GRID
NEAR = 0.5 / GRID  # how far from a shape's edge the centre of a cell may be that it reaches into


def covered(known: Tensor) -> Tensor:
    """The cells (N, GRID²) bool that a shape reaches into, by labels (N, 11) of `label`."""
    across = (CENTRES[None, None] - known[:, 3, None, None]) / (known[:, 5, None, None] + NEAR)
    down = (CENTRES[None, :, None] - known[:, 4, None, None]) / (known[:, 6, None, None] + NEAR)
    there = (known[:, 0] >= 0) & (known[:, 7] > 0.15)
    return ((across**2 + down**2) < 1).flatten(1) & there[:, None]


def written(known: Tensor, meaning: dict[str, Tensor]) -> Tensor:
    """What a perfect eye writes of frames with labels (N, 11): (N, GRID², C)."""
    numbers = [tuple(each) for each in known[:, :3].long().tolist()]
    told = {each: _told(*each, meaning) for each in set(numbers)}
    shown = torch.stack([told[each] for each in numbers])[:, None]
    return torch.where(covered(known)[..., None], shown, meaning[IDLE])


def frames_written(scene: Scene, seconds: Tensor, meaning: dict[str, Tensor]) -> Tensor:
    """The same of a scene's frames at `seconds` (T,), of any colour that has a name."""
    known, told = [], []
    for second in seconds.tolist():
        event = next((e for e in scene.events if e.start <= second < e.end), None)
        words = str(event).split() if event else [IDLE]
        told.append(torch.stack([meaning[word] for word in words if word in meaning]).sum(0))
        place = (0.0,) * 5
        if event:
            there = look(event, (second - event.start) / (event.end - event.start))
            sides = placed(Style(), there.x, there.y, there.radius, there.radius)
            place = (*sides, there.opacity)
        known.append((0.0 if event else -1.0, 0.0, 0.0, *place))
    inside = covered(torch.tensor(known))[..., None]
    return torch.where(inside, torch.stack(told)[:, None], meaning[IDLE])


def _told(colour: int, shape: int, motion: int, meaning: dict[str, Tensor]) -> Tensor:
    """The sum of the words for a shape by its numbers, -1 where there is none."""
    if colour < 0:
        return meaning[IDLE]
    told = [SHAPES[shape], *MOTIONS[motion].split()]
    told += [] if colour == NAMELESS else [COLOURS[colour]]
    return torch.stack([meaning[word] for word in told]).sum(0)
