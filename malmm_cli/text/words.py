"""Words of messages: numbers with their nouns, the nearest known name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["counted", "known_names", "nearest", "number_word"]

_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


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


def number_word(number: int) -> str:
    """A number of 0 to 999,999 in words: "ninety-six", "one hundred and three"."""
    if number < 20:
        return _ONES[number]
    if number < 100:
        tail = f"-{_ONES[number % 10]}" if number % 10 else ""
        return f"{_TENS[number // 10 - 2]}{tail}"
    size, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    whole, rest = f"{number_word(number // size)} {name}", number % size
    if not rest:
        return whole
    return f"{whole}{' and ' if rest < 100 else ', '}{number_word(rest)}"
