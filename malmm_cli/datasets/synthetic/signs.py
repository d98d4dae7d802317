"""The world with signs: the plain one, with a small number under every shape.

What number that is, is a detail that no caption tells and that one has to read.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from malmm_cli.datasets.synthetic import plain
from malmm_cli.datasets.synthetic.drawing import lowest
from malmm_cli.datasets.synthetic.scene import Scene
from malmm_cli.datasets.synthetic.telling import NUMBERS

__all__ = ["arrange", "signed"]

LOWEST = 0.92  # of the height: down to where there is room for a number


def arrange(
    chance: random.Random,
    seed: int,
    seconds: float,
    split: str,
    events: int | None,
    colours: Sequence[str],
) -> Scene:
    """A scene of the plain world, with numbers; raises UsageError as that does."""
    scene = plain.arrange(chance, seed, seconds, split, events, colours)
    return replace(signed(scene, chance), world="signs")


def signed(scene: Scene, chance: random.Random) -> Scene:
    """The scene with a number under every shape, moved up where there is no room for it."""
    events = []
    for event in scene.events:
        higher = event.y - max(lowest(event) - LOWEST, 0.0)
        number = chance.randrange(1, len(NUMBERS))
        events.append(replace(event, y=round(higher, 3), number=number))
    return replace(scene, events=tuple(events))
