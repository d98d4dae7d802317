"""What happens in a synthetic video, drawn from a seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from malmm_cli.datasets.synthetic import hard, plain, signs
from malmm_cli.datasets.synthetic.scene import COLOURS, SPARE_COLOUR, SPLITS, Scene
from malmm_cli.errors import UsageError
from malmm_cli.text.words import known_names

__all__ = ["WORLDS", "intended_frames", "scenario"]

_ARRANGED = {"plain": plain.arrange, "hard": hard.arrange, "signs": signs.arrange}
_FRAMES = {
    "plain": plain.intended_frames,
    "hard": hard.intended_frames,
    "signs": plain.intended_frames,
}

WORLDS = tuple(_ARRANGED)


def intended_frames(seconds: float, world: str = "plain") -> int:
    """Frames that a video of this length is meant to be seen in."""
    return _FRAMES[world](seconds)


def scenario(
    seed: int,
    seconds: float,
    *,
    split: str = "test",
    events: int | None = None,
    colours: Sequence[str] = COLOURS,
    world: str = "plain",
) -> Scene:
    """The scene of a seed; seeds of one split have nothing to do with those of another.

    It has so many `events`, or as many as are usual in this `world`. Raises UsageError where so
    many do not fit, and for unknown colours, splits and worlds.
    """
    _check(seconds, split, colours, world)
    parts = (split, seed, seconds, events, *colours)
    number = _number(*parts) if world == "plain" else _number(world, *parts)
    return _ARRANGED[world](random.Random(number), seed, seconds, split, events, colours)


def _check(seconds: float, split: str, colours: Sequence[str], world: str) -> None:
    if world not in WORLDS:
        raise UsageError(f"unknown world {world!r}", hint=known_names(world, WORLDS))
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
