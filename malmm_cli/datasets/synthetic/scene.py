"""What happens in a synthetic video and when, drawn from a seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from malmm_cli.errors import UsageError
from malmm_cli.text.words import known_names

__all__ = [
    "COLOURS",
    "MOTIONS",
    "SHAPES",
    "SPLITS",
    "Event",
    "Scene",
    "held_out",
    "intended_frames",
    "scenario",
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

# An event lasts so many steps of the frames that a video of its length is meant to be seen in.
STEPS = (2.5, 4.5)
LEAST_SECONDS = 1.0
FILLED = 0.8  # of the time, at most; the rest is idle
MOST_EVENTS = 12  # unless more are asked for: longer videos have longer idle stretches

_HELD_OUT = 6  # one combination in so many


@dataclass(frozen=True)
class Event:
    """From `start` to `end` seconds a shape of one colour does one thing.

    `x`, `y` is the middle of it, as shares of width and height; `radius` a share of the height;
    `angle` its tilt in radians.
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

    @property
    def name(self) -> str:
        """Colour and shape, which no two events of a scene share."""
        return f"{self.colour} {self.shape}"

    def __str__(self) -> str:
        return f"{self.name} {self.motion}"


@dataclass(frozen=True)
class Scene:
    """A video before it is drawn: events in order, none at the same time as another.

    `cuts` are the seconds at which the background changes, 0 the first; `backgrounds` one seed for
    each; `noise` the standard deviation of the camera's noise, in steps of a pixel's 256.
    """

    seed: int
    seconds: float
    events: tuple[Event, ...]
    cuts: tuple[float, ...] = (0.0,)
    backgrounds: tuple[int, ...] = (0,)
    noise: float = 0.0


def held_out(colour: str, shape: str, motion: str) -> bool:
    """Whether a combination is kept from training; each pair of its parts is not."""
    if colour not in COLOURS:
        return False
    number = COLOURS.index(colour) + SHAPES.index(shape) + MOTIONS.index(motion)
    return number % _HELD_OUT == 0


def intended_frames(seconds: float) -> int:
    """Frames that a video of this length is meant to be seen in: 60 up to two minutes, or 100."""
    return 60 if seconds <= 120 else 100


def scenario(
    seed: int,
    seconds: float,
    *,
    split: str = "test",
    events: int | None = None,
    colours: Sequence[str] = COLOURS,
) -> Scene:
    """The scene of a seed; seeds of one split have nothing to do with those of another.

    `events` of them, or by default 5 to 12 in two minutes, fewer in less and at most 12 in more.
    Raises UsageError if they do not fit, and for unknown colours.
    """
    _check(seconds, split, colours)
    chance = random.Random(_number(split, seed, seconds, events, *colours))
    step = seconds / (intended_frames(seconds) - 1)
    shortest = max(STEPS[0] * step, min(LEAST_SECONDS, seconds / 2))
    most = max(1, min(int(FILLED * seconds / shortest), len(colours) * len(SHAPES)))
    if events is None:
        low, high = (round(count * min(seconds, 120) / 120) for count in (5, MOST_EVENTS))
        events = min(most, chance.randint(max(low, 1), max(high, 1)))
    elif not 1 <= events <= most:
        raise UsageError(
            f"{events} events in {seconds:g} s: must be between 1 and {most}",
            hint=f"each event lasts at least {shortest:.1f} s, so that sampling cannot miss it",
        )
    lasting = [chance.uniform(*STEPS) / STEPS[0] * shortest for _ in range(events)]
    if sum(lasting) > FILLED * seconds:
        longer = (FILLED * seconds - shortest * events) / (sum(lasting) - shortest * events)
        lasting = [shortest + (length - shortest) * longer for length in lasting]
    idle = seconds - sum(lasting)
    shares = [chance.expovariate(1.0) for _ in range(events + 1)]
    gaps = [idle * share / sum(shares) for share in shares]
    looks = _looks(chance, events, split, colours)
    happening, now = [], 0.0
    for gap, length, look in zip(gaps, lasting, looks, strict=False):
        now += gap
        happening.append(_event(chance, now, now + length, look))
        now += length
    cuts = (0.0, *sorted(round(chance.uniform(0, seconds), 2) for _ in range(chance.randint(0, 3))))
    return Scene(
        seed=seed,
        seconds=seconds,
        events=tuple(happening),
        cuts=cuts,
        backgrounds=tuple(chance.randrange(2**31) for _ in cuts),
        noise=round(chance.uniform(0.0, 5.0), 2),
    )


def _check(seconds: float, split: str, colours: Sequence[str]) -> None:
    if not 10 <= seconds <= 3600:
        raise UsageError(f"a video of {seconds:g} s: must be between 10 s and 60 min")
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}", hint=known_names(split, SPLITS))
    for colour in colours:
        if colour not in (*COLOURS, SPARE_COLOUR):
            known = ", ".join((*COLOURS, SPARE_COLOUR))
            raise UsageError(f"unknown colour {colour!r}", hint=f"known: {known}")
    if len(set(colours)) < len(colours) or not colours:
        raise UsageError("give at least one colour, each only once")


def _number(*parts: object) -> int:
    """A number that differs wherever a part does, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")


def _looks(
    chance: random.Random, count: int, split: str, colours: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Colour, shape and motion of each event; no colour and shape together twice."""
    pairs = [(colour, shape) for colour in colours for shape in SHAPES]
    looks = []
    for colour, shape in chance.sample(pairs, count):
        kept = [motion for motion in MOTIONS if not held_out(colour, shape, motion)]
        hidden = [motion for motion in MOTIONS if motion not in kept]
        unseen = split == "test" and hidden and chance.random() < 0.5
        looks.append((colour, shape, chance.choice(hidden if unseen else kept)))
    return looks


def _event(chance: random.Random, start: float, end: float, look: tuple[str, str, str]) -> Event:
    return Event(
        round(start, 3),
        round(end, 3),
        *look,
        x=round(chance.uniform(0.32, 0.68), 3),
        y=round(chance.uniform(0.34, 0.66), 3),
        radius=round(chance.uniform(0.15, 0.22), 3),
        angle=round(chance.uniform(-0.3, 0.3), 3),
    )
