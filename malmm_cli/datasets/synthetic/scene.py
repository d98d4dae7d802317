"""What a synthetic video shows, and when: names, events, scenes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from malmm_cli.errors import UsageError

__all__ = [
    "COLOURS",
    "MOTIONS",
    "SHAPES",
    "SPARE_COLOUR",
    "SPLITS",
    "Distractor",
    "Event",
    "Scene",
    "check_events",
    "held_out",
    "most_events",
    "motion_of",
    "put",
]

COLOURS = ("black", "blue", "green", "orange", "pink", "purple", "red", "yellow")
SHAPES = ("cross", "heart", "moon", "square", "star", "triangle")
MOTIONS = (
    *("blinks", "falls", "grows", "moves left", "moves right", "rises", "spins", "vanishes"),
)

# Drawn from by `--colours` alone: the world has a word for it and does not use it by itself.
SPARE_COLOUR = "teal"

# train and validation: held-out combinations never happen; test: half of its events are such
SPLITS = ("train", "validation", "test")

_HELD_OUT = 6  # one combination in so many


@dataclass(frozen=True)
class Event:
    """From `start` to `end` seconds a shape of one colour does one thing.

    `x`, `y` is the middle of it, as shares of width and height; `radius` a share of the height;
    `angle` its tilt in radians. A `number` from 1 to 4 stands under it, 0 for none.
    """

    start: float
    end: float
    colour: str
    shape: str
    motion: str
    x: float = 0.5
    y: float = 0.5
    radius: float = 0.18
    angle: float = 0.0
    number: int = 0

    @property
    def name(self) -> str:
        """Colour and shape."""
        return f"{self.colour} {self.shape}"

    def __str__(self) -> str:
        return f"{self.name} {self.motion}"


@dataclass(frozen=True)
class Distractor:
    """From `start` to `end` seconds a grey disc crosses the picture, and nothing is asked about it.

    `y` and `radius` are as in `Event`; it comes from the left or, if `leftwards`, from the right.
    """

    start: float
    end: float
    y: float
    radius: float
    grey: int
    leftwards: bool


@dataclass(frozen=True)
class Scene:
    """A video before it is drawn: events in order, none at the same time as another.

    `cuts` are the seconds at which the background changes, 0 the first; `backgrounds` one seed for
    each; `noise` the standard deviation of the camera's noise, in steps of a pixel's 256. With a
    `drift`, a share from 0 to 1, backgrounds fade into each other from cut to cut instead, so much
    of the way. Brightness changes by the share `light` within `period` seconds, from `phase`
    radians. `world` decides what is asked about it.
    """

    seed: int
    seconds: float
    events: tuple[Event, ...]
    cuts: tuple[float, ...] = (0.0,)
    backgrounds: tuple[int, ...] = (0,)
    noise: float = 0.0
    drift: float = 0.0
    light: float = 0.0
    period: float = 1.0
    phase: float = 0.0
    distractors: tuple[Distractor, ...] = ()
    world: str = "plain"

    def once(self) -> list[Event]:
        """The events whose object comes in no other."""
        names = [event.name for event in self.events]
        return [event for event in self.events if names.count(event.name) == 1]


def held_out(colour: str, shape: str, motion: str) -> bool:
    """Whether a combination is kept from training; each pair of its parts is not."""
    if colour not in COLOURS:
        return False
    number = COLOURS.index(colour) + SHAPES.index(shape) + MOTIONS.index(motion)
    return number % _HELD_OUT == 0


def motion_of(chance: random.Random, colour: str, shape: str, split: str) -> str:
    """What an object does; in tests every second one does what training never shows of it."""
    kept = [motion for motion in MOTIONS if not held_out(colour, shape, motion)]
    hidden = [motion for motion in MOTIONS if motion not in kept]
    unseen = split == "test" and hidden and chance.random() < 0.5
    return chance.choice(hidden if unseen else kept)


def most_events(seconds: float, shortest: float, filled: float, colours: Sequence[str]) -> int:
    """How many events fit, each at least `shortest` seconds, into the share `filled` of a video."""
    return max(1, min(int(filled * seconds / shortest), len(colours) * len(SHAPES)))


def check_events(events: int, most: int, seconds: float, why: str) -> None:
    """Raise UsageError, and say why, for a number of events that does not fit."""
    if not 1 <= events <= most:
        message = f"{events} events in {seconds:g} s: must be between 1 and {most}"
        raise UsageError(message, hint=why)


def put(chance: random.Random, start: float, end: float, look: tuple[str, str, str]) -> Event:
    """An event of a colour, shape and motion, somewhere near the middle of the picture."""
    return Event(
        round(start, 3),
        round(end, 3),
        *look,
        x=round(chance.uniform(0.32, 0.68), 3),
        y=round(chance.uniform(0.34, 0.66), 3),
        radius=round(chance.uniform(0.15, 0.22), 3),
        angle=round(chance.uniform(-0.3, 0.3), 3),
    )
