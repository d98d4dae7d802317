"""Task files: questions and prompts about videos, one JSON object a line.

One vocabulary for training, evaluation and batches:

    {"id", "video", "question" or "prompt", "answer" or "answers",
     "kind"?, "choices"?, "evidence"?: [start, end], "from"?, "to"?}

Paths are relative to the file. A task with neither question nor prompt is a caption.
"""

from __future__ import annotations

import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from malmm_cli.datasets.metrics import is_right
from malmm_cli.errors import UsageError
from malmm_cli.files.special import kind_of
from malmm_cli.types import Task

__all__ = ["FIELDS", "read_tasks", "task_as_json"]

FIELDS = (
    *("id", "video", "question", "prompt", "answer", "answers", "kind", "choices", "evidence"),
    *("from", "to"),
)
SHOWN = 5  # problems told at once
LONGEST = 1e9  # seconds, thirty years


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
    for number, line in _lines(path):
        try:
            task = _task(line, path.parent, answered=answered, present=present)
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        if task.id in lines:
            problems.append(
                f"line {number}: id {task.id!r} is already used on line {lines[task.id]}"
            )
        lines.setdefault(task.id, number)
        tasks.append(task)
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UsageError(
            f"{path}: {'; '.join(problems[:SHOWN])}{more}",
            hint=f"each line must be a JSON object with these fields: {', '.join(FIELDS)}",
        )
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


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of every line that is not empty."""
    kind = kind_of(path)
    if kind not in ("", "a file", "a folder"):
        raise UsageError(
            f"{path}: is {kind}; tasks are read from a file", hint="save them to a file first"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror or error}", hint="give a file with one JSON object per line"
        ) from error
    for number, raw in enumerate(content.splitlines(), start=1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"{path}: line {number} is not UTF-8: {error.reason}") from error
        if line.strip():
            yield number, line


def _task(line: str, folder: Path, *, answered: bool, present: bool) -> Task:
    """The task of one line; ValueError says what is wrong with it."""
    try:
        content = json.loads(line, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("not valid JSON: nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    unknown = sorted(set(content) - set(FIELDS))
    if unknown:
        raise ValueError(f"unknown field {', '.join(map(repr, unknown))}")
    for one, other in (("question", "prompt"), ("answer", "answers")):
        if content.get(one) is not None and content.get(other) is not None:
            raise ValueError(f"both {one!r} and {other!r}")
    answers = _texts(content, "answers")
    single = _text(content, "answer")
    if answered and not answers and single is None:
        raise ValueError("no 'answer'")
    video = _text(content, "video", needed=True)
    assert video is not None
    if present and not _is_there(folder / video):
        raise ValueError(f"video {video!r} does not exist or is not a file")
    choices, right = _texts(content, "choices"), answers if single is None else (single,)
    if len({unicodedata.normalize("NFC", choice) for choice in choices}) < len(choices):
        raise ValueError("'choices' contains a duplicate")
    if choices and right and not any(is_right(choice, right) for choice in choices):
        raise ValueError("none of the answers is in 'choices'")
    start, end = _seconds(content, "from"), _seconds(content, "to")
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"'to' {end:g} is not after 'from' {start or 0:g}")
    return Task(
        id=_id(content),
        video=os.path.normpath(folder / video),
        question=_text(content, "question"),
        prompt=_text(content, "prompt"),
        answers=right,
        kind=_text(content, "kind"),
        choices=choices,
        evidence=_span(content),
        start=start,
        end=end,
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, none of whose fields comes twice."""
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"duplicate key {twice!r}")
    return content


def _is_there(path: Path) -> bool:
    try:
        return path.exists() and not path.is_dir()  # a pipe or a device may be asked for
    except OSError:  # no such name is possible
        return False


def _id(content: dict[str, Any]) -> str:
    value = content.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = _text(content, "id", needed=True)
    assert text is not None
    return text


def _text(content: dict[str, Any], name: str, *, needed: bool = False) -> str | None:
    value = content.get(name)
    if value is None and not needed:
        return None
    if value is None:
        raise ValueError(f"no {name!r}")
    if not isinstance(value, str):
        raise ValueError(f"{name!r} is not a string")
    if not value.strip():
        raise ValueError(f"{name!r} is empty")
    if name != "video":
        _check_whole(name, value)
    return value


def _texts(content: dict[str, Any], name: str) -> tuple[str, ...]:
    value = content.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name!r} is not a list of strings")
    if not all(isinstance(text, str) for text in value):
        raise ValueError(f"{name!r} contains an item that is not a string")
    if not all(text.strip() for text in value):
        raise ValueError(f"{name!r} contains an empty string")
    for text in value:
        _check_whole(name, text)
    return tuple(value)


def _check_whole(name: str, text: str) -> None:
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"{name!r} contains an unpaired surrogate")


def _seconds(content: dict[str, Any], name: str) -> float | None:
    value = content.get(name)
    if value is None:
        return None
    if not _is_seconds(value):
        raise ValueError(f"{name!r} must be a number of seconds")
    return float(value)


def _span(content: dict[str, Any]) -> tuple[float, float] | None:
    value = content.get("evidence")
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not all(map(_is_seconds, value)):
        raise ValueError("'evidence' must be [start, end] in seconds")
    if value[1] < value[0]:
        raise ValueError("'evidence' ends before it starts")
    return (float(value[0]), float(value[1]))


def _is_seconds(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value <= LONGEST
