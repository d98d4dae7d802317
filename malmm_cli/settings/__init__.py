"""Everything that decides a result besides the video, the model and the question."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypedDict, Unpack

from malmm_cli.errors import UsageError
from malmm_cli.settings.arguments import check_names, check_types, kinds, plain, strict
from malmm_cli.settings.parts import (
    BANK_POLICIES,
    BANKS,
    DECODERS,
    FILLS,
    MEANS,
    MERGES,
    POLICIES,
    Decoding,
    MemoryOptions,
    Sampling,
)
from malmm_cli.text.clock import parse_seconds
from malmm_cli.text.words import known_names

__all__ = [
    "BANKS",
    "BANK_POLICIES",
    "DECODERS",
    "FILLS",
    "MEANS",
    "MERGES",
    "POLICIES",
    *("Changes", "Choice"),
    "Decoding",
    "Defaults",
    "MemoryOptions",
    "Sampling",
    "Settings",
    "by_kind",
    "caption_prompt",
    "changed",
    "check_paths",
    "check_order",
    "check_questions",
    "flag",
    "prompts_for",
]


@strict
@dataclass(frozen=True)
class Settings:
    """Everything that decides a result; the `prompt` has {} in place of a question.

    So many moments that a question looks at are shown to it again (`look_again`), frame by frame.
    """

    prompt: str
    sampling: Sampling = field(default_factory=Sampling)
    memory: MemoryOptions = field(default_factory=MemoryOptions)
    decoding: Decoding = field(default_factory=Decoding)
    look_again: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return all of it by the names of the options, as results and digests have it.

        What a full bank does beside its policy is left out where it is the usual.
        """
        memory: dict[str, Any] = {"memory": self.memory.length, "policy": self.memory.policy}
        memory |= {"banks": self.memory.banks, **self.memory.compression}
        decoding = {"decoding": asdict(self.decoding)}
        again = {"look_again": self.look_again} if self.look_again else {}
        return {"prompt": self.prompt, **asdict(self.sampling), **memory, **decoding, **again}


# fields of the parts that options, and `Changes`, call otherwise
_NAMES = {"memory": {"length": "memory", "seed": "memory_seed"}}


class Choice(TypedDict, total=False):
    """Which frames to look at, as keyword arguments; see `Sampling` for each."""

    frames: int | None
    fps: float | None
    max_frames: int | None
    start: float | str | None
    end: float | str | None
    decoder: str


class Changes(Choice, total=False):
    """Settings by the names of the options, as keyword arguments; see `Settings` for each.

    `seed` is that of texts and of the memory; `memory_seed` gives the memory another one.
    """

    prompt: str
    memory: int
    policy: str
    merge: str
    mean: str
    fill: str
    memory_seed: int
    look_again: int
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

    `policies`, `banks`, `merges`, `means` and `fills` are those that its memory has; `looks_again`
    says whether it can look at moments again. `training` names the options of training that it has
    and another family may lack.
    """

    tasks: Mapping[str, Settings]
    policies: tuple[str, ...]
    banks: tuple[str, ...]
    merges: tuple[str, ...] = ("token",)
    means: tuple[str, ...] = ("weighted",)
    fills: tuple[str, ...] = ("mean",)
    looks_again: bool = False
    training: tuple[str, ...] = ()

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
            ("merge", memory.merge, self.merges),
            ("mean", memory.mean, self.means),
            ("fill", memory.fill, self.fills),
            ("banks", memory.banks, self.banks),
        ):
            if value not in allowed:
                raise UsageError(
                    f"--{option} {value}: not available for this model",
                    hint=f"use {'one of ' if allowed[1:] else ''}{', '.join(allowed)}",
                )
        if settings.look_again and not self.looks_again:
            raise UsageError("--look-again: not available for this model", hint="leave it out")
        return settings

    def check_training(self, given: Mapping[str, Any]) -> None:
        """Raise UsageError for an option of training, not None, that the family lacks."""
        for name, value in given.items():
            if value is not None and name not in self.training:
                raise UsageError(
                    f"{flag(name)} {value}: not available for training this model",
                    hint="leave it out",
                )


def changed(settings: Settings, **changes: Any) -> Settings:
    """Return settings with some values changed; UsageError for what `Changes` does not allow."""
    _check_given(settings)
    check_names("settings()", changes, kinds(Changes))
    changes = {name: plain(value) for name, value in changes.items()}
    check_types(changes, kinds(Changes))
    if changes.get("fps") is not None and "frames" not in changes:
        changes["frames"] = None
    if changes.get("frames") is not None and "fps" not in changes:  # a family has a rate
        changes = {"max_frames": None, **changes, "fps": None}
    if "seed" in changes:
        changes.setdefault("memory_seed", changes["seed"] or 0)
    for name in ("start", "end"):
        if isinstance(changes.get(name), str):
            changes[name] = parse_seconds(flag(name), changes[name])
    parts: dict[str, Any] = {}
    for name in ("sampling", "memory", "decoding"):
        part = getattr(settings, name)
        names = {f.name: f.name for f in fields(part)} | _NAMES.get(name, {})
        own = {field: changes.pop(name) for field, name in names.items() if name in changes}
        parts[name] = replace(part, **own)
    settings = replace(settings, **parts, **changes)
    _check(settings)
    return settings


def flag(name: str) -> str:
    """The name of an option on the command line: "--max-new-tokens", "--from"."""
    other = {"start": "from", "end": "to", "memory_seed": "seed"}
    return "--" + other.get(name, name).replace("_", "-")


def by_kind(changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Changes for questions, and for captions and other prompts.

    A prompt with a place for the question is for questions, another one for the rest.
    """
    rest = {name: value for name, value in changes.items() if name != "prompt"}
    for_questions = "{}" in str(changes.get("prompt"))
    return ({**changes}, rest) if for_questions else (rest, {**changes})


def check_questions(questions: object) -> None:
    """Raise UsageError for anything but a list of strings."""
    if not isinstance(questions, list | tuple) or not all(isinstance(q, str) for q in questions):
        raise UsageError(f"questions must be a list of strings, not {questions!r}")


def check_order(video: object, questions: Sequence[str], hint: str) -> None:
    """Raise UsageError with the hint where a question stands in the place of the video."""
    if isinstance(video, str) and not os.path.exists(video) and any(map(os.path.isfile, questions)):
        raise UsageError(f"{video}: no such file", hint=hint)


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


def caption_prompt(settings: Settings) -> str:
    """The prompt of a caption; UsageError for one with a place for a question."""
    if "{}" in settings.prompt:
        raise UsageError(
            f"the prompt {settings.prompt!r} has {{}}, but a caption has no question to put there",
            hint="leave {} out, or ask a question",
        )
    return settings.prompt


def check_paths(*, optional: bool = False, **paths: object) -> None:
    """Raise UsageError for what is not a path, by its name; optional ones may be None."""
    for name, path in paths.items():
        if not (isinstance(path, str | os.PathLike) or (optional and path is None)):
            raise UsageError(f"{name} must be a path, not {path!r}")


def _check_given(settings: object) -> None:
    """Raise UsageError for settings, or parts or values of them, of another type."""
    if not isinstance(settings, Settings):
        raise UsageError(f"settings must be Settings, not {settings!r}")
    given: dict[str, Any] = {"prompt": settings.prompt, "look_again": settings.look_again}
    for name, kind in (("sampling", Sampling), ("memory", MemoryOptions), ("decoding", Decoding)):
        part = getattr(settings, name)
        if not isinstance(part, kind):
            raise UsageError(f"settings.{name} must be {kind.__name__}, not {part!r}")
        names = _NAMES.get(name, {})
        given |= {names.get(field, field): value for field, value in vars(part).items()}
    check_types(given, kinds(Changes))


def _check(settings: Settings) -> None:
    settings.sampling.check()
    settings.memory.check()
    settings.decoding.check()
    if settings.look_again < 0:
        raise UsageError(f"--look-again {settings.look_again}: must be 0 or more")
    if not settings.prompt.strip():
        raise UsageError("the prompt is empty")
    _check_text("prompt", settings.prompt)


def _check_text(what: str, text: str) -> None:
    """Raise UsageError for bytes on the command line that are not valid text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the {what} {text!r} is not valid in this system's encoding") from None
