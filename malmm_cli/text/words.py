"""Words of messages: numbers with their nouns, the nearest known name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["counted", "known_names", "nearest"]


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 video", "2 videos"; `plural` where it is not `noun` and s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return "did you mean …? ", or "" if no known name is close."""
    near = get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"did you mean {near[0]}? " if near else ""


def known_names(name: str, known: Iterable[str]) -> str:
    """The hint for an unknown name: the nearest known one, and all of them."""
    known = list(known)
    return f"{nearest(name, known)}one of {', '.join(known)}"
