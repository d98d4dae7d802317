"""Times as people write them: 75, 90s, 1h2m3.5s, 0:01:15.5."""

from __future__ import annotations

import re

from malmm_cli.errors import UsageError

__all__ = ["parse_seconds", "seconds_text"]

LONGEST = 40  # characters of a time in messages

_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_CLOCK = re.compile(rf"(?:(?:(\d+):)?(\d{{1,2}}):)?({_NUMBER})", re.ASCII)
_UNITS = re.compile(rf"(?=.)(?:(\d+)h)?(?:(\d+)m)?(?:({_NUMBER})s)?", re.ASCII)


class _Written(float):
    """Seconds that were written in another way than as a number, and how."""

    def __new__(cls, seconds: float, text: str) -> _Written:
        new = super().__new__(cls, seconds)
        new.text = text
        return new

    text: str

    def __reduce__(self) -> tuple[type[_Written], tuple[float, str]]:
        return _Written, (float(self), self.text)


def parse_seconds(name: str, text: str) -> float:
    """Seconds of "75", "90s", "1h2m", "1h2m3.5s", "1:15" or "0:01:15.5".

    Minutes and seconds after a larger unit must be below 60. Raises UsageError, which names the
    option or argument `name`, for anything else. `seconds_text` gives the text back.
    """
    stripped = text.strip()
    found = _CLOCK.fullmatch(stripped) or _UNITS.fullmatch(stripped)
    parts = [float(part) if part else None for part in found.groups()] if found else []
    values = [part for part in parts if part is not None]
    if not values or any(part >= 60 for part in values[1:]):
        raise UsageError(
            f"{name} {text}: give seconds or [HH:]MM:SS, such as 75, 1:15, 90s or 1h2m"
        )
    hours, minutes, seconds = (part or 0.0 for part in parts)
    total = (hours * 60 + minutes) * 60 + seconds
    return total if re.fullmatch(_NUMBER, stripped) else _Written(total, stripped)


def seconds_text(seconds: float) -> str:
    """Seconds as they were written, "1h2m"; a number as "75 s"."""
    text = seconds.text if isinstance(seconds, _Written) else f"{seconds:g} s"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
