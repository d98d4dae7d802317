"""Task files: questions and prompts about videos, one JSON object a line.

One vocabulary for training, evaluation and batches:

    {"id", "video", "question" or "prompt", "answer" or "answers",
     "kind"?, "choices"?, "evidence"?: [start, end], "from"?, "to"?}

Paths are relative to the file. A task with neither question nor prompt is a caption.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from malmm_cli.datasets.metrics import is_right
from malmm_cli.errors import UsageError
from malmm_cli.files.schema import Text, checked
from malmm_cli.files.special import kind_of
from malmm_cli.files.strict_json import load
from malmm_cli.types import Task

__all__ = ["check_file", "read_tasks", "task_as_json"]

SHOWN = 5  # problems reported at once
LONGEST = 1e9  # seconds, thirty years
HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair

Seconds = Annotated[float, msgspec.Meta(ge=0, le=LONGEST)]
Texts = Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)]


def read_tasks(
    path: str | os.PathLike[str], *, answered: bool = True, present: bool = True
) -> list[Task]:
    """Read every line of a file of tasks; nothing is used before all of it has been checked.

    `answered` demands an answer of every task, `present` that its video is there. Raises UsageError
    that names the lines at fault: not valid JSON, unknown or missing field, a value of another
    kind, an id twice, a video that is not there; and for a file without a line or in another
    encoding than UTF-8.
    """
    path = Path(path)
    tasks: list[Task] = []
    problems: list[str] = []
    lines: dict[str, int] = {}
    gone = 0
    for number, line in _lines(path):
        try:
            task = _task(line, path.parent, answered=answered, present=present)
        except ValueError as error:
            gone += isinstance(error, _GoneError)
            problems.append(f"line {number}: {error}")
            continue
        if (first := lines.setdefault(task.id, number)) != number:
            problems.append(f"line {number}: id {task.id!r} is already used on line {first}")
        tasks.append(task)
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        hint = "each line must be a JSON object with these fields: "
        hint += ", ".join(_Line.__struct_encode_fields__)
        if gone == len(problems):
            hint = f"paths of videos are relative to {path.name}, or absolute"
        raise UsageError(f"{path}: {'; '.join(problems[:SHOWN])}{more}", hint=hint)
    if not tasks:
        raise UsageError(
            f"{path}: the file is empty", hint="give a file with one JSON object per line"
        )
    return tasks


def task_as_json(task: Task) -> dict[str, Any]:
    """The object that `read_tasks` makes a task of; `video` as the task has it."""
    answers = {"answers": list(task.answers)} if len(task.answers) > 1 else {}
    answer = {"answer": task.answers[0]} if len(task.answers) == 1 else {}
    content = {
        "id": task.id,
        "video": task.video,
        "question": task.question,
        "prompt": task.prompt,
        **answer,
        **answers,
        "kind": task.kind,
        "choices": list(task.choices) or None,
        "evidence": list(task.evidence) if task.evidence else None,
        "from": task.start,
        "to": task.end,
    }
    return {name: value for name, value in content.items() if value is not None}


def _unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(
        f"{path}: {error.strerror or error}", hint="give a file with one JSON object per line"
    )


def check_file(path: Path) -> None:
    """Raise UsageError for a path that no task file has; reads nothing."""
    kind = kind_of(path)
    if kind not in ("", "a file", "a folder"):
        raise UsageError(
            f"{path}: is {kind}; tasks are read from a file", hint="save them to a file first"
        )
    try:
        path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of every line that is not empty."""
    check_file(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    for number, raw in enumerate(content.splitlines(), start=1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"{path}: line {number} is not UTF-8: {error.reason}") from error
        if line.strip():
            yield number, line


class _GoneError(ValueError):
    """A video that is not there."""


class _Line(msgspec.Struct, forbid_unknown_fields=True, rename={"start": "from", "end": "to"}):
    """A line of the file; null is the same as no such field."""

    id: int | Text
    video: Text
    question: Text | None = None
    prompt: Text | None = None
    answer: Text | None = None
    answers: Texts | None = None
    kind: Text | None = None
    choices: Texts | None = None
    evidence: tuple[Seconds, Seconds] | None = None
    start: Seconds | None = None
    end: Seconds | None = None

    @property
    def right(self) -> tuple[str, ...]:
        """All right answers."""
        return (self.answers or ()) if self.answer is None else (self.answer,)

    def __post_init__(self) -> None:
        """Raise ValueError for fields that do not go together."""
        for one, other in (("question", "prompt"), ("answer", "answers")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"both {one!r} and {other!r}")
        for name in ("question", "prompt", "answer", "answers", "kind", "choices", "id"):
            value = getattr(self, name) or ""
            if HALF.search(str(value) if name == "id" else "".join(value)):
                raise ValueError(f"{name!r} contains an unpaired surrogate")
        choices, right = self.choices or (), self.right
        if len({unicodedata.normalize("NFC", choice) for choice in choices}) < len(choices):
            raise ValueError("'choices' contains a duplicate")
        if choices and right and not any(is_right(choice, right) for choice in choices):
            raise ValueError("none of the answers is in 'choices'")
        if self.end is not None and self.end <= (self.start or 0.0):
            raise ValueError(f"'to' {self.end:g} is not after 'from' {self.start or 0:g}")
        if self.evidence and self.evidence[1] < self.evidence[0]:
            raise ValueError("'evidence' ends before it starts")


def _task(text: str, folder: Path, *, answered: bool, present: bool) -> Task:
    """The task of one line; ValueError says what is wrong with it."""
    line = checked(load(text), _Line)
    if answered and not line.right:
        raise ValueError("no 'answer'")
    if present and not _is_there(folder / line.video):
        raise _GoneError(f"video {line.video!r} does not exist or is not a file")
    return Task(
        id=str(line.id),
        video=os.path.normpath(folder / line.video),
        question=line.question,
        prompt=line.prompt,
        answers=line.right,
        kind=line.kind,
        choices=line.choices or (),
        evidence=line.evidence,
        start=line.start,
        end=line.end,
    )


def _is_there(path: Path) -> bool:
    try:
        return path.exists() and not path.is_dir()  # a pipe or a device may be asked for
    except OSError:  # no such name is possible
        return False
