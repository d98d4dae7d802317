"""The hard world: bursts of short events in long stretches where nothing is asked about.

Backgrounds and light drift, grey discs cross the picture, and objects come back to do something
else. It is meant to be seen in a frame a second, where a memory cannot hold every frame.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from malmm_cli.datasets.synthetic.scene import (
    SHAPES,
    Distractor,
    Event,
    Scene,
    check_events,
    most_events,
    motion_of,
    put,
)

__all__ = ["Difficulty", "arrange", "intended_frames"]

MOST_FRAMES = 600
FILLED = 0.6  # of the time, at most, by bursts
SAME_AGAIN = 0.3  # of the objects that come back do the same as before


@dataclass(frozen=True)
class Difficulty:
    """What makes the world hard; times are in steps from one frame to the next.

    Events last `steps`, and follow each other after a `gap` in bursts of `burst` events. So many of
    the objects are `recurring`, and grey discs are there for a share `crossed` of the time;
    `drift` and `light` are as in `Scene`.
    """

    steps: tuple[float, float] = (3.0, 6.0)
    gap: tuple[float, float] = (1.0, 4.0)
    burst: tuple[int, int] = (2, 4)
    events: tuple[int, int] = (4, 9)
    recurring: float = 0.3
    crossed: float = 0.3
    drift: float = 0.5
    light: float = 0.15


def intended_frames(seconds: float) -> int:
    """Frames that a video of this length is meant to be seen in: one a second, at most 600."""
    return min(round(seconds), MOST_FRAMES)


def arrange(
    chance: random.Random,
    seed: int,
    seconds: float,
    split: str,
    events: int | None,
    colours: Sequence[str],
    difficulty: Difficulty = Difficulty(),
) -> Scene:
    """A scene of so many events; by default fewer in a minute than in ten.

    Raises UsageError where so many do not fit.
    """
    step = seconds / (intended_frames(seconds) - 1)
    shortest = (difficulty.steps[0] + difficulty.gap[0]) * step
    most = most_events(seconds, shortest, FILLED, colours)
    if events is None:
        low, high = difficulty.events
        events = min(most, chance.randint(low, high))
    else:
        why = f"in the hard world each takes at least {shortest:.1f} s"
        check_events(events, most, seconds, f"{why}, and {1 - FILLED:.0%} of it is left empty")
    bursts = _bursts(chance, events, difficulty.burst)
    looks = iter(_looks(chance, bursts, split, colours, difficulty.recurring))
    lasting, gaps = _durations(chance, events, seconds, step, difficulty)
    idle = seconds - sum(lasting) - sum(gaps)
    shares = [chance.uniform(0.5, 1.5) for _ in range(len(bursts) + 1)]
    happening: list[Event] = []
    now, times = 0.0, iter(zip(lasting, gaps, strict=True))
    for size, share in zip(bursts, shares, strict=False):
        now += idle * share / sum(shares)
        for _ in range(size):
            length, gap = next(times)
            happening.append(put(chance, now, now + length, next(looks)))
            now += length + gap
    cuts = tuple(round(seconds * k / 3, 2) for k in range(4))
    return Scene(
        seed=seed,
        seconds=seconds,
        events=tuple(happening),
        cuts=cuts,
        backgrounds=tuple(chance.randrange(2**31) for _ in cuts),
        noise=round(chance.uniform(0.0, 5.0), 2),
        drift=difficulty.drift,
        light=difficulty.light,
        period=round(seconds * chance.uniform(0.3, 0.8), 2),
        phase=round(chance.uniform(0.0, 6.283), 3),
        distractors=_distractors(chance, seconds, step, difficulty.crossed),
        world="hard",
    )


def _bursts(chance: random.Random, events: int, size: tuple[int, int]) -> list[int]:
    """How many events each burst has; as few too few as possible."""
    bursts = []
    while events:
        largest = min(size[1], events)
        count = chance.randint(min(size[0], largest), largest)
        if 0 < events - count < size[0]:  # what is left would be too few
            count = events if events <= size[1] else events - size[0]
        bursts.append(count)
        events -= count
    return bursts


def _looks(
    chance: random.Random, bursts: Sequence[int], split: str, colours: Sequence[str], share: float
) -> list[tuple[str, str, str]]:
    """Colour, shape and motion of each event; a share of them in a later burst than before."""
    new = [(colour, shape) for colour in colours for shape in SHAPES]
    chance.shuffle(new)
    looks: list[tuple[str, str, str]] = []
    seen: list[tuple[str, str, str]] = []  # in earlier bursts, and not again since
    for size in bursts:
        burst = []
        for _ in range(size):
            if seen and chance.random() < share:
                earlier = seen.pop(chance.randrange(len(seen)))
                burst.append(_again(chance, earlier, split))
            else:
                pair = new.pop()
                burst.append((*pair, motion_of(chance, *pair, split)))
        known = {look[:2] for look in looks}
        seen += [look for look in burst if look[:2] not in known]
        looks += burst
    return looks


def _again(chance: random.Random, look: tuple[str, str, str], split: str) -> tuple[str, str, str]:
    """What the object of a look does when it comes back: mostly something else."""
    if chance.random() < SAME_AGAIN:
        return look
    motion = look[2]
    while motion == look[2]:
        motion = motion_of(chance, *look[:2], split)
    return (*look[:2], motion)


def _durations(
    chance: random.Random, events: int, seconds: float, step: float, difficulty: Difficulty
) -> tuple[list[float], list[float]]:
    """Seconds that each event lasts, and those until the next one of its burst."""
    drawn = [
        (chance.uniform(*difficulty.steps), chance.uniform(*difficulty.gap)) for _ in range(events)
    ]
    least = events * (difficulty.steps[0] + difficulty.gap[0])
    over = sum(map(sum, drawn)) - least
    # where they would fill too much, what is more than the least shrinks
    share = min(1.0, (FILLED * seconds / step - least) / over) if over else 1.0

    def fitted(values: Sequence[float], shortest: float) -> list[float]:
        return [(shortest + (value - shortest) * share) * step for value in values]

    lasting, gaps = zip(*drawn, strict=True)
    return fitted(lasting, difficulty.steps[0]), fitted(gaps, difficulty.gap[0])


def _distractors(
    chance: random.Random, seconds: float, step: float, share: float
) -> tuple[Distractor, ...]:
    """Grey discs, one at a time, each on its way for 8 to 20 steps."""
    found, now = [], 0.0
    while now < seconds:
        end = now + chance.uniform(8, 20) * step
        if chance.random() < share:
            found.append(
                Distractor(
                    start=round(now, 2),
                    end=round(end, 2),
                    y=round(chance.uniform(0.1, 0.9), 3),
                    radius=round(chance.uniform(0.05, 0.08), 3),
                    grey=chance.randint(120, 170),
                    leftwards=chance.random() < 0.5,
                )
            )
        now = end
    return tuple(found)
