"""A model's answers to tasks, kept as JSON Lines that a later run resumes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from malmm_cli.errors import UsageError
from malmm_cli.evaluate.naming import difference
from malmm_cli.files.escapes import to_json
from malmm_cli.files.jsonl import lines_in, open_lines, without
from malmm_cli.files.schema import checked
from malmm_cli.files.special import check_own
from malmm_cli.files.strict_json import load
from malmm_cli.formats import SCHEMA, check_writable
from malmm_cli.types import Task

__all__ = ["Kept", "Prediction", "check_source", "digest", "kept"]

_ANOTHER = "use --overwrite, or choose another file with --predictions"


class Prediction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer to the task `id`: `text`, or else the `error`, with kind and message.

    `likelihoods` are those of the task's choices, where it was to choose. `frames` pictures were
    looked at, from `first` to `last` seconds, in the part of the video from `start` to `end`;
    `warnings` describe problems with them.
    """

    id: str
    video: str
    prompt: str
    text: str | None = None
    likelihoods: dict[str, float] | None = None
    frames: int = 0
    first: float = 0.0
    last: float = 0.0
    start: float = 0.0
    end: float = 0.0
    duration: float = 0.0
    warnings: list[str] | None = None
    error: dict[str, str] | None = None


@dataclass(frozen=True)
class Kept:
    """Predictions by the id of their task, those of earlier runs among them; `add` keeps one."""

    found: dict[str, Prediction]
    add: Callable[[Prediction], None]


class _Header(msgspec.Struct):
    """The first line of a file."""

    predictions: dict[str, Any]


@contextmanager
def kept(path: Path, provenance: dict[str, Any], *, overwrite: bool) -> Iterator[Kept]:
    """The predictions in a file and those to come, each written to the disk when it is added.

    The first line is `provenance`: what they come from. Raises UsageError for a file that is not
    one, or comes from something else, unless that is to be overwritten. Half a line at the end, as
    a kill leaves it, is removed.
    """
    check_writable(path, overwrite=True, read_back=True)
    check_own(path)
    found = {} if overwrite else _read(path, provenance)
    append = bool(found) or (path.exists() and not overwrite)
    with open_lines(path, overwrite=overwrite, append=append) as write:
        if not append or path.stat().st_size == 0:
            write(_header(provenance))

        def add(prediction: Prediction) -> None:
            content = {
                name: value
                for name, value in structs.asdict(prediction).items()
                if value is not None
            }
            write(_line(content))
            found[prediction.id] = prediction

        yield Kept(found, add)


def check_source(path: Path, known: Mapping[str, Any]) -> None:
    """Raise UsageError for predictions of another provenance, of which a part is `known`.

    Only the first line is read: `kept` refuses what else is wrong with the file.
    """
    first = next(lines_in(path), None)
    if first is not None and first.is_whole:
        header = _valid(path, [first.raw])[0]
        _check_same(path, {name: header.get(name) for name in known}, known)


def digest(tasks: Sequence[Task]) -> str:
    """A digest of the tasks, independent of their videos' folders."""
    content = [{**asdict(task), "video": os.path.basename(task.video)} for task in tasks]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _read(path: Path, provenance: dict[str, Any]) -> dict[str, Prediction]:
    """The predictions in a file; none without a file or without a complete line in it."""
    stored = list(lines_in(path))
    lines = [line.raw for line in stored if line.is_whole]
    begun = b"".join(line.raw for line in stored)
    if not lines and _header(provenance).encode().startswith(begun):
        lines = [_header(provenance).encode()]
    header, found = _valid(path, lines)
    _check_same(path, header, provenance)
    if stored and not stored[-1].is_whole:
        without(path, [(stored[-1].start, stored[-1].stop)])
    return {prediction.id: prediction for prediction in found}


def _valid(path: Path, lines: Sequence[bytes]) -> tuple[dict[str, Any], list[Prediction]]:
    """The provenance and the predictions in the lines of a file; UsageError for other lines."""
    try:
        if not lines:
            raise ValueError("the only line is not a prediction header")
        header = checked(load(lines[0]), _Header).predictions
        return header, [checked(load(line), Prediction) for line in lines[1:]]
    except ValueError as error:
        raise UsageError(f"{path}: is not a predictions file", hint=_ANOTHER) from error


def _check_same(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    if there != here:
        message = f"{path}: holds predictions {difference(there, here)}"
        raise UsageError(message, hint=_ANOTHER)


def _header(provenance: dict[str, Any]) -> str:
    """The first line of a file."""
    return _line({"schema": SCHEMA, "predictions": provenance})


def _line(content: dict[str, Any]) -> str:
    return to_json(content) + "\n"
