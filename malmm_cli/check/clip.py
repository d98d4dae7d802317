"""A drawn clip, and what is asked about it: a red star moves to the right."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from malmm_cli.datasets.synthetic import COLOURS, SHAPES, Event, Scene, picture

__all__ = ["QUESTIONS", "SECONDS", "SIZE", "Question", "frames"]

# An odd number of frames: a model that takes them in pairs sees the last one twice.
SECONDS = 7
SIZE = (640, 480)  # width and height of the clip, which a model scales to a size of its own

_SCENE = Scene(seed=0, seconds=SECONDS, events=(Event(0, SECONDS, "red", "star", "moves right"),))


@dataclass(frozen=True)
class Question:
    """A question; the last word of an answer that is `accepted` or `refused` decides."""

    text: str
    accepted: tuple[str, ...]
    refused: tuple[str, ...]

    def is_right(self, answer: str) -> bool:
        """Whether an answer is right: "It moves from left to right." is."""
        words = re.findall(r"\w+", answer.lower())
        telling = [word for word in words if word in (*self.accepted, *self.refused)]
        return bool(telling) and telling[-1] in self.accepted


_ONE = "Answer with one word."
QUESTIONS = (
    Question(
        f"What colour is the shape? {_ONE}",
        ("red", "crimson", "scarlet"),
        tuple(colour for colour in COLOURS if colour != "red"),
    ),
    Question(
        f"Is the shape a star, a square or a heart? {_ONE}",
        ("star",),
        tuple(shape for shape in SHAPES if shape != "star"),
    ),
    Question(
        f"Does the shape move left or right? {_ONE}",
        ("right", "rightward", "rightwards"),
        ("left", "leftward", "leftwards"),
    ),
)


def frames(width: int, height: int) -> NDArray[np.uint8]:
    """The clip at one frame a second, (SECONDS, height, width, 3) uint8."""
    return np.stack([picture(_SCENE, float(second), (width, height)) for second in range(SECONDS)])
