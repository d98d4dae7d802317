"""The output as JSON Lines that record their inputs, so that a rerun recognises them.

Each line is an item as `malmm_cli.formats` writes it, with

    "id"        which item it is
    "identity"  which file it was made from (see `malmm_cli.files.fingerprint`)
    "settings"  what else decided it: a hash of model, revision, sampling, memory, prompt, decoding
    "name"      its file's name without suffix, where there is a folder of files
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType, structs

from malmm_cli.batch.files import is_name
from malmm_cli.errors import OUTPUT_EXISTS, MalmmError, UsageError
from malmm_cli.files.atomic import new_file
from malmm_cli.files.escapes import to_json
from malmm_cli.files.jsonl import StoredLine, lines_in
from malmm_cli.files.schema import checked
from malmm_cli.files.strict_json import NotJsonError, RefusedError, load
from malmm_cli.formats import SCHEMA, Failure, Item, as_json
from malmm_cli.types import Result

__all__ = [
    *("AGAIN", "Line", "Lines", "item_of", "line_of", "read_lines", "write_whole"),
]

AGAIN = "fix that and run the same command to resume"

START = json.dumps({"schema": SCHEMA}).encode()[:-1]  # of every line


@dataclass(frozen=True)
class Line:
    """Where an item stands in the file, from byte `start` to `stop`, and what it was made from."""

    id: str
    video: str
    start: int
    stop: int
    settings: str
    identity: str | None = None
    name: str | None = None
    failed: bool = False
    kind: str | None = None  # of the error


@dataclass(frozen=True)
class Lines:
    """What stands in a file: the last line of each item, and ranges of bytes of no use.

    `damaged` is what a kill, a full disk or a power cut left; `replaced` are lines that another one
    of the same item follows.
    """

    kept: dict[str, Line] = field(default_factory=dict)
    replaced: list[Line] = field(default_factory=list)
    damaged: list[tuple[int, int]] = field(default_factory=list)


def read_lines(path: Path) -> Lines:
    """Read what stands in the file, which may not be there; changes nothing.

    Raises UsageError for a file that holds anything but results of a batch.
    """
    found = Lines()
    for number, stored in enumerate(lines_in(path), start=1):
        line = _line(stored, path.stem)
        if line is None:
            if stored.is_whole and stored.raw.strip(b"\0\r\n \t"):
                _check_ours(path, number, stored.raw, found)
            found.damaged.append((stored.start, stored.stop))
            continue
        before = found.kept.pop(line.id, None)
        if before:
            found.replaced.append(before)
        found.kept[line.id] = line
    if not found.kept and found.damaged and not _begins_as_ours(path):
        raise _stranger(path, 1)
    return found


class _Memory(Struct, rename={"memory": "length", "memory_seed": "seed"}):
    memory: int
    policy: str
    banks: str
    merge: str = Result.merge
    mean: str = Result.mean
    fill: str = Result.fill
    memory_seed: int | None = None


class _Frames(Struct, rename={"frames": "used"}):
    frames: int
    first: float
    last: float
    duration: float


class _Error(Struct):
    kind: str
    message: str


class _Stored(Struct):
    """What every line says; the rest is that of a result or of a failure."""

    schema: Literal["malmm/1"]
    video: str
    task: str


class _Done(_Stored):
    """What is nested in the line of a result; the rest is as `Result` has it."""

    memory: _Memory
    frames: _Frames


class _Failed(_Stored):
    error: _Error
    text: UnsetType = UNSET  # that of a result


class _Record(Struct):
    """What a batch adds to each."""

    id: str
    identity: str | None
    settings: str
    name: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a name that no file of ours has."""
        if self.name is not None and not is_name(self.name):
            raise ValueError("not the name of a file of a batch")


def _line(stored: StoredLine, own: str) -> Line | None:
    """The item of a line; None for one that is not whole, not ours, or makes no sense.

    A line names no file that has the name of the results, their `own`.
    """
    if not stored.is_whole:
        return None
    try:
        content = load(stored.raw)
        item, record = _stored(content), checked(content, _Record)
    except ValueError:
        return None
    if record.name is not None and record.name.casefold() == own.casefold():
        return None
    known = (record.id, item.video, stored.start, stored.stop)
    made_from = (record.settings, record.identity, record.name)
    kind = item.error.kind if isinstance(item, _Failed) else None
    return Line(*known, *made_from, failed=kind is not None, kind=kind)


def _stored(content: Any) -> Result | _Failed:
    """What a line holds; raises ValueError where that is no item."""
    if "error" in checked(content, dict[str, Any]):
        return checked(content, _Failed)
    done = checked(content, _Done)
    nested = structs.asdict(done.memory) | structs.asdict(done.frames)
    return checked(content | nested, Result)


def _check_ours(path: Path, number: int, raw: bytes, found: Lines) -> None:
    """Raise UsageError for a line that is whole and something else."""
    with suppress(NotJsonError):
        with suppress(RefusedError):
            load(raw)
        raise _stranger(path, number)
    if not raw.startswith(START) and not found.kept:
        raise _stranger(path, number)


def _begins_as_ours(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(len(START)).rstrip(b"\0")
    return START.startswith(head)


def _stranger(path: Path, number: int) -> UsageError:
    return UsageError(
        f"{path}: line {number} is not a malmm batch result",
        hint="choose another file with -o, or use --overwrite",
        kind=OUTPUT_EXISTS,
    )


def write_whole(path: Path, parts: Iterable[bytes], *, replace: bool = True) -> None:
    """Have a file of these bytes on the disk under its name, whole or not at all."""
    with new_file(path, durable=True, hint=AGAIN, replace=replace) as file:
        file.writelines(parts)


def line_of(
    item: Item, name: str, identity: str | None, settings: str, file: str | None = None
) -> str:
    """The line of an item."""
    record = {"id": name, "identity": identity, "settings": settings}
    named = {"name": file} if file else {}
    return to_json({**as_json(item), **record, **named}) + "\n"


def item_of(raw: bytes) -> Item:
    """The item that a line was made of."""
    line = _stored(load(raw))
    if isinstance(line, Result):
        return line
    return Failure(line.video, line.task, MalmmError(line.error.message, kind=line.error.kind))
