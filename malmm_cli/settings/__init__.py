"""Everything that decides a result besides the video, the model and the question."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import wraps
from typing import Any, TypedDict, TypeVar, Unpack

from malmm_cli.errors import UsageError
from malmm_cli.settings.arguments import check_names, check_types, kinds
from malmm_cli.text.clock import parse_seconds, seconds_text
from malmm_cli.text.words import known_names

__all__ = [
    "BANKS",
    "BANK_POLICIES",
    "DECODERS",
    "POLICIES",
    *("Changes", "Choice", "Decoding"),
    "Defaults",
    "MemoryOptions",
    "Sampling",
    "Settings",
    "by_kind",
    "changed",
    "check_paths",
    "check_questions",
    "flag",
    "prompts_for",
]

DECODERS = ("auto", "pyav", "nvdec", "ffmpeg", "decord")
POLICIES = ("mbc", "fifo", "average", "last")
BANK_POLICIES = ("mbc", "fifo")  # those that keep slots of earlier frames
BANKS = ("both", "visual", "query", "none")

Class = TypeVar("Class")


def _named(cls: type[Class]) -> type[Class]:
    """Have a class refuse keyword arguments that it lacks by an ArgumentError."""
    plain: Any = cls
    build = plain.__init__
    known = [name for name in build.__annotations__ if name != "return"]

    @wraps(build)
    def checked(self: object, *positional: Any, **named: Any) -> None:
        check_names(f"{cls.__name__}()", named, known)
        build(self, *positional, **named)

    plain.__init__ = checked
    return cls


@_named
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


@_named
@dataclass(frozen=True)
class Sampling:
    """Which frames to look at.

    `frames` in all, or `fps` a second with at most `max_frames`, between `start` and `end` seconds.
    """

    frames: int | None = 100
    fps: float | None = None
    max_frames: int | None = None
    start: float | None = None
    end: float | None = None
    decoder: str = "auto"

    def check(self) -> None:
        """Raise UsageError for values that make no sense."""
        # `not x > 0` and its like also refuse NaN
        frames, fps, most = self.frames, self.fps, self.max_frames
        start, end = self.start, self.end
        if frames is not None and fps is not None:
            raise UsageError("--frames and --fps exclude each other", hint="use only one of them")
        if frames is not None and frames < 1:
            raise UsageError(f"--frames {frames}: must be at least 1")
        if fps is not None and not 0 < fps < math.inf:
            raise UsageError(f"--fps {fps:g}: must be a number above 0")
        if most is not None and most < 1:
            raise UsageError(f"--max-frames {most}: must be at least 1")
        if most is not None and frames is not None:
            raise UsageError("--max-frames needs --fps", hint="use --frames instead")
        if start is not None and not start >= 0:
            raise UsageError(f"--from {start:g}: must be 0 or more (the first frame is at 0)")
        if end is not None and not end > (start or 0.0):
            times = f"--to {seconds_text(end)} must come after --from {seconds_text(start or 0.0)}"
            raise UsageError(times)


@_named
@dataclass(frozen=True)
class MemoryOptions:
    """How a video is remembered: `length` slots in each bank, 0 for no memory."""

    length: int = 20
    policy: str = "mbc"
    banks: str = "both"

    @property
    def keeps_banks(self) -> bool:
        """Whether slots of earlier frames are kept."""
        return self.length > 0 and self.policy in BANK_POLICIES

    @property
    def keeps_visual(self) -> bool:
        """Whether the visual bank is in use."""
        return self.keeps_banks and self.banks in ("both", "visual")

    @property
    def keeps_queries(self) -> bool:
        """Whether the query banks are in use."""
        return self.keeps_banks and self.banks in ("both", "query")

    @property
    def gives_every_frame(self) -> bool:
        """Whether the language model is given the tokens of every frame."""
        return self.length == 0 and self.policy in BANK_POLICIES

    def within(self, frames: int) -> MemoryOptions:
        """Return the same without slots that `frames` frames cannot fill."""
        return replace(self, length=min(self.length, frames))


@_named
@dataclass(frozen=True)
class Settings:
    """Everything that decides a result; the `prompt` has {} in place of a question."""

    prompt: str
    sampling: Sampling = Sampling()
    memory: MemoryOptions = MemoryOptions()
    decoding: Decoding = Decoding()

    def as_dict(self) -> dict[str, Any]:
        """Return all of it by the names of the options, as results and digests have it."""
        memory = {"memory": self.memory.length, "policy": self.memory.policy}
        decoding = {"banks": self.memory.banks, "decoding": asdict(self.decoding)}
        return {"prompt": self.prompt, **asdict(self.sampling), **memory, **decoding}


class Choice(TypedDict, total=False):
    """Which frames to look at, as keyword arguments; see `Sampling` for each."""

    frames: int | None
    fps: float | None
    max_frames: int | None
    start: float | str | None
    end: float | str | None
    decoder: str


class Changes(Choice, total=False):
    """Settings by the names of the options, as keyword arguments; see `Settings` for each."""

    prompt: str
    memory: int
    policy: str
    banks: str
    max_new_tokens: int
    beams: int
    length_penalty: float
    repetition_penalty: float
    sample: bool
    temperature: float
    top_p: float
    seed: int | None


@dataclass(frozen=True)
class Defaults:
    """The defaults of a model family: its settings by task, "caption" and "ask".

    `policies` and `banks` are those that its memory has.
    """

    tasks: Mapping[str, Settings]
    policies: tuple[str, ...]
    banks: tuple[str, ...]

    def settings(
        self, task: str, settings: Settings | None = None, **changes: Unpack[Changes]
    ) -> Settings:
        """Return settings, or those of a task, changed; UsageError for what the family lacks."""
        if task not in self.tasks:
            raise UsageError(f"unknown task {task!r}", hint=known_names(str(task), self.tasks))
        return self.checked(changed(settings or self.tasks[task], **changes))

    def checked(self, settings: Settings) -> Settings:
        """Return settings that the family has; UsageError for others."""
        memory = settings.memory
        for option, value, allowed in (
            ("policy", memory.policy, self.policies),
            ("banks", memory.banks, self.banks),
        ):
            if value not in allowed:
                raise UsageError(
                    f"--{option} {value}: not available for this model",
                    hint=f"use one of {', '.join(allowed)}",
                )
        return settings


def changed(settings: Settings, **changes: Any) -> Settings:
    """Return settings with some values changed; UsageError for what `Changes` does not allow."""
    _check_given(settings)
    check_names("settings()", changes, kinds(Changes))
    check_types(changes, kinds(Changes))
    if changes.get("fps") is not None and "frames" not in changes:
        changes["frames"] = None
    if "memory" in changes:
        changes["length"] = changes.pop("memory")
    for name in ("start", "end"):
        if isinstance(changes.get(name), str):
            changes[name] = parse_seconds(flag(name), changes[name])
    parts: dict[str, Any] = {}
    for name in ("sampling", "memory", "decoding"):
        part = getattr(settings, name)
        own = {f.name: changes.pop(f.name) for f in fields(part) if f.name in changes}
        parts[name] = replace(part, **own)
    settings = replace(settings, **parts, **changes)
    _check(settings)
    return settings


def flag(name: str) -> str:
    """The name of an option on the command line: "--max-new-tokens", "--from"."""
    return "--" + {"start": "from", "end": "to"}.get(name, name).replace("_", "-")


def by_kind(changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Changes for questions, and for captions and other prompts.

    A prompt with a place for the question is for questions, another one for the rest.
    """
    plain = {name: value for name, value in changes.items() if name != "prompt"}
    for_questions = "{}" in str(changes.get("prompt"))
    return ({**changes}, plain) if for_questions else (plain, {**changes})


def check_questions(questions: object) -> None:
    """Raise UsageError for anything but a list of strings."""
    if not isinstance(questions, list | tuple) or not all(isinstance(q, str) for q in questions):
        raise UsageError(f"questions must be a list of strings, not {questions!r}")


def prompts_for(questions: Sequence[str], settings: Settings) -> list[str]:
    """The prompt of each question; UsageError for none, an empty one, or one without a place."""
    check_questions(questions)
    if not questions or not all(question.strip() for question in questions):
        fault = "a question is empty" if questions else "no question was given"
        raise UsageError(fault, hint='ask, for example, "what does she add?"')
    for question in questions:
        _check_text("question", question)
    if "{}" not in settings.prompt:
        raise UsageError(f"the prompt {settings.prompt!r} has no {{}} where the question goes")
    return [settings.prompt.replace("{}", question) for question in questions]


def check_paths(*, optional: bool = False, **paths: object) -> None:
    """Raise UsageError for what is not a path, by its name; optional ones may be None."""
    for name, path in paths.items():
        if not (isinstance(path, str | os.PathLike) or (optional and path is None)):
            raise UsageError(f"{name} must be a path, not {path!r}")


def _check_given(settings: object) -> None:
    """Raise UsageError for settings, or parts or values of them, of another type."""
    if not isinstance(settings, Settings):
        raise UsageError(f"settings must be Settings, not {settings!r}")
    given: dict[str, Any] = {"prompt": settings.prompt}
    for name, kind in (("sampling", Sampling), ("memory", MemoryOptions), ("decoding", Decoding)):
        part = getattr(settings, name)
        if not isinstance(part, kind):
            raise UsageError(f"settings.{name} must be {kind.__name__}, not {part!r}")
        given |= vars(part)
    given["memory"] = given.pop("length")
    check_types(given, kinds(Changes))


def _check(settings: Settings) -> None:
    for name, value, allowed in (
        ("decoder", settings.sampling.decoder, DECODERS),
        ("policy", settings.memory.policy, POLICIES),
        ("banks", settings.memory.banks, BANKS),
    ):
        if value not in allowed:
            raise UsageError(f"unknown {name} {value!r}", hint=known_names(value, allowed))
    settings.sampling.check()
    if settings.memory.length < 0:
        raise UsageError(f"--memory {settings.memory.length}: must be at least 0")
    _check_decoding(settings.decoding)
    if not settings.prompt.strip():
        raise UsageError("the prompt is empty")
    _check_text("prompt", settings.prompt)


def _check_decoding(decoding: Decoding) -> None:
    for name, number in (("max-new-tokens", decoding.max_new_tokens), ("beams", decoding.beams)):
        if number < 1:
            raise UsageError(f"--{name} {number}: must be at least 1")
    for name, value in (
        ("temperature", decoding.temperature),
        ("repetition-penalty", decoding.repetition_penalty),
    ):
        if not 0 < value < math.inf:
            raise UsageError(f"--{name} {value:g}: must be a number above 0")
    if not 0 < decoding.top_p <= 1:
        raise UsageError(f"--top-p {decoding.top_p:g}: must be above 0 and at most 1")
    if not abs(decoding.length_penalty) <= 100:  # it is an exponent
        raise UsageError(
            f"--length-penalty {decoding.length_penalty:g}: must be between -100 and 100"
        )
    if decoding.temperature < 1e-3:
        raise UsageError(f"--temperature {decoding.temperature:g}: must be at least 0.001")
    if decoding.beams > 1000:
        raise UsageError(f"--beams {decoding.beams}: must be at most 1000")
    if decoding.seed is not None and not 0 <= decoding.seed < 2**64:
        raise UsageError(f"--seed {decoding.seed}: must be between 0 and {2**64 - 1}")


def _check_text(what: str, text: str) -> None:
    """Raise UsageError for bytes on the command line that are not valid text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the {what} {text!r} is not valid in this system's encoding") from None
