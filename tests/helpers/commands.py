"""A sample, quick options, and what a command left behind."""

from dataclasses import dataclass
from pathlib import Path

SAMPLE = Path(__file__).parents[2] / "examples" / "shapes.mp4"
WORDS = "a what where which colour shape moves left right red green blue circle square".split()

# Options of a run that takes a fraction of a second and prints its result alone.
FAST = ("--model", "tiny", "--frames", "4", "--beams", "2", "--max-new-tokens", "4", "-q")


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str
