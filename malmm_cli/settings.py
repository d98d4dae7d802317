"""Everything that decides a result besides the video, the model and the question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from malmm_cli.errors import UsageError

__all__ = [
    "ASK",
    "BANKS",
    "CAPTION",
    "DECODERS",
    "POLICIES",
    "Decoding",
    "Settings",
    "changed",
    "prompts_for",
]

DECODERS = ("auto", "pyav", "nvdec", "ffmpeg", "decord")
POLICIES = ("mbc", "fifo", "average", "last")
BANKS = ("both", "visual", "query", "none")


@dataclass(frozen=True)
class Decoding:
    """How the language model is searched; the reference's values for captions.

    `sample` draws instead of taking the likeliest, at `temperature` and from the smallest set of
    tokens that holds `top_p` of the probability; `seed` makes that repeatable.
    """

    max_new_tokens: int = 50
    beams: int = 5
    length_penalty: float = 1.0
    repetition_penalty: float = 1.5
    sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True)
class Settings:
    """Which frames to look at, how to remember them, what to ask and how to search for the text.

    `frames` in all, or `fps` a second with at most `max_frames`, between `start` and `end` seconds;
    `memory` slots, 0 for none; the `prompt` has {} in the place of a question.
    """

    prompt: str
    frames: int | None = 100
    fps: float | None = None
    max_frames: int | None = None
    start: float | None = None
    end: float | None = None
    decoder: str = "auto"
    memory: int = 20
    policy: str = "mbc"
    banks: str = "both"
    decoding: Decoding = field(default_factory=Decoding)


# The reference's prompts and numbers (MA-LMM, run_scripts and default configuration).
CAPTION = Settings(prompt="what does the video describe?")
ASK = Settings(
    prompt="Question: {} Short answer:",
    frames=20,
    memory=10,
    decoding=Decoding(max_new_tokens=9, length_penalty=0.0),
)


def changed(settings: Settings, **changes: Any) -> Settings:
    """Settings with some fields changed, those of `decoding` among them; checked."""
    own = {
        name: changes.pop(name)
        for name in list(changes)
        if name in {f.name for f in fields(Settings)}
    }
    if own.get("fps") is not None and "frames" not in own:
        own["frames"] = None
    settings = replace(settings, **own)
    settings = replace(settings, decoding=replace(settings.decoding, **changes))
    _check(settings)
    return settings


def prompts_for(questions: Sequence[str], settings: Settings) -> list[str]:
    """The prompt of each question; UsageError for one that is empty or has no place in it."""
    if not questions or not all(question.strip() for question in questions):
        raise UsageError("a question is empty", hint='ask, for example, "what does she add?"')
    for question in questions:
        _check_text("question", question)
    if "{}" not in settings.prompt:
        raise UsageError(f"the prompt {settings.prompt!r} has no {{}} for the question")
    return [settings.prompt.replace("{}", question) for question in questions]


def _check(settings: Settings) -> None:
    for name, value, allowed in (
        ("decoder", settings.decoder, DECODERS),
        ("policy", settings.policy, POLICIES),
        ("banks", settings.banks, BANKS),
    ):
        if value not in allowed:
            raise UsageError(f"unknown {name} {value!r}", hint=f"one of {', '.join(allowed)}")
    _check_numbers(settings, settings.decoding)
    if not settings.prompt.strip():
        raise UsageError("the prompt is empty")
    _check_text("prompt", settings.prompt)


def _check_numbers(settings: Settings, decoding: Decoding) -> None:
    for name, number, least in (
        ("frames", settings.frames, 1),
        ("max-frames", settings.max_frames, 1),
        ("memory", settings.memory, 0),
        ("max-new-tokens", decoding.max_new_tokens, 1),
        ("beams", decoding.beams, 1),
    ):
        if number is not None and number < least:
            raise UsageError(f"--{name} {number}: at least {least} is needed")
    for name, value in (
        ("fps", settings.fps),
        ("temperature", decoding.temperature),
        ("repetition-penalty", decoding.repetition_penalty),
    ):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"--{name} {value:g}: a number above 0 is needed")
    if not 0 < decoding.top_p <= 1:
        raise UsageError(f"--top-p {decoding.top_p:g}: a number above 0 and up to 1 is needed")
    if not abs(decoding.length_penalty) <= 100:  # it is an exponent
        raise UsageError(f"--length-penalty {decoding.length_penalty:g}: -100 to 100 is possible")
    if decoding.temperature < 1e-3:
        raise UsageError(f"--temperature {decoding.temperature:g}: at least 0.001 is needed")
    if decoding.beams > 1000:
        raise UsageError(f"--beams {decoding.beams}: at most 1000 are possible")
    if decoding.seed is not None and not 0 <= decoding.seed < 2**64:
        raise UsageError(f"--seed {decoding.seed}: 0 to {2**64 - 1} is possible")
    start = settings.start or 0.0
    if settings.end is not None and not settings.end > start:
        raise UsageError(f"--to {settings.end:g} s must come after --from {start:g} s")


def _check_text(what: str, text: str) -> None:
    """Raise UsageError for bytes on the command line that are no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the {what} {text!r} is not text in this system's encoding") from None
