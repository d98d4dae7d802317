"""The plain world: events at random times before backgrounds that stand still."""

from __future__ import annotations

import random
from collections.abc import Sequence

from malmm_cli.datasets.synthetic.scene import (
    SHAPES,
    Event,
    Scene,
    check_events,
    most_events,
    motion_of,
    put,
)

__all__ = ["arrange", "intended_frames"]

# An event lasts so many steps of the frames that a video of its length is meant to be seen in.
STEPS = (2.5, 4.5)
LEAST_SECONDS = 1.0
FILLED = 0.8  # of the time, at most; the rest is idle
MOST_EVENTS = 12  # unless more are asked for: longer videos have longer idle stretches


def intended_frames(seconds: float) -> int:
    """Frames that a video of this length is meant to be seen in: 60 up to two minutes, or 100."""
    return 60 if seconds <= 120 else 100


def arrange(
    chance: random.Random,
    seed: int,
    seconds: float,
    split: str,
    events: int | None,
    colours: Sequence[str],
) -> Scene:
    """A scene of so many events, or by default 5 to 12 in two minutes.

    Shorter videos have fewer, longer ones at most 12. No object comes twice.
    Raises UsageError where so many do not fit.
    """
    step = seconds / (intended_frames(seconds) - 1)
    shortest = max(STEPS[0] * step, min(LEAST_SECONDS, seconds / 2))
    most = most_events(seconds, shortest, FILLED, colours)
    if events is None:
        low, high = (round(count * min(seconds, 120) / 120) for count in (5, MOST_EVENTS))
        events = min(most, chance.randint(max(low, 1), max(high, 1)))
    else:
        why = f"each event lasts at least {shortest:.1f} s, so that sampling cannot miss it"
        check_events(events, most, seconds, why)
    lasting = [chance.uniform(*STEPS) / STEPS[0] * shortest for _ in range(events)]
    if sum(lasting) > FILLED * seconds:
        longer = (FILLED * seconds - shortest * events) / (sum(lasting) - shortest * events)
        lasting = [shortest + (length - shortest) * longer for length in lasting]
    idle = seconds - sum(lasting)
    shares = [chance.expovariate(1.0) for _ in range(events + 1)]
    gaps = [idle * share / sum(shares) for share in shares]
    pairs = [(colour, shape) for colour in colours for shape in SHAPES]
    looks = [(*pair, motion_of(chance, *pair, split)) for pair in chance.sample(pairs, events)]
    happening: list[Event] = []
    now = 0.0
    for gap, length, look in zip(gaps, lasting, looks, strict=False):
        now += gap
        happening.append(put(chance, now, now + length, look))
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
