"""The inputs of a batch: folders, patterns, files, lists and task files → tasks."""

from __future__ import annotations

import glob
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from malmm_cli.batch.listed import listed
from malmm_cli.batch.missing import missing
from malmm_cli.batch.patterns import Patterns
from malmm_cli.datasets.tasks import read_tasks
from malmm_cli.errors import UsageError
from malmm_cli.events import SILENT, Events
from malmm_cli.files.special import kind_of
from malmm_cli.media.files import not_a_stream
from malmm_cli.types import VIDEO_SUFFIXES, Task

__all__ = ["find_tasks", "find_videos", "folder_below", "is_tasks", "seen_from"]

NO_PATTERNS = Patterns()


def find_tasks(
    inputs: Sequence[str],
    lines: Iterable[str],
    questions: Sequence[str],
    base: Path,
    events: Events = SILENT,
    *,
    patterns: Patterns = NO_PATTERNS,
    null: bool = False,
    known: Container[str] = (),
    own: Container[str] = (),
) -> list[Task]:
    """A caption of each video, or the answer to each question; and the tasks of .jsonl files.

    The id of an item that comes from no file of tasks is its video, as seen from the folder `base`,
    and its question; each comes once. `patterns` and `null` are those of `find_videos`; files that
    do not exist any more are accepted where their ids are `known`; those at the absolute paths
    `own` are malmm's and left out. Raises UsageError where nothing is found, for an input that does
    not exist, and for an id that two tasks have.
    """
    inputs = [given for given in inputs if os.path.abspath(given) not in own]
    named = [path for given in inputs if is_tasks(given) for path in _each(given)]
    others = [given for given in inputs if not is_tasks(given)]
    if questions and not others:
        raise UsageError("--ask applies to videos, but only tasks were given")
    for given in (g for g in others if not (g == "-" or os.path.lexists(g) or glob.has_magic(g))):
        name = seen_from(base, given)
        ids = [f"{name}//{question}" for question in questions] or [name]
        if not any(one in known for one in ids):
            raise missing(given)
    tasks: dict[str, Task] = {}
    found = find_videos(others, lines, events, patterns=patterns, null=null) if others else []
    for video in (path for path in found if os.path.abspath(path) not in own):
        name = seen_from(base, video)
        for question in questions or (None,):
            key = name if question is None else f"{name}//{question}"
            tasks.setdefault(key, Task(key, video, question))
    for given in named:
        for task in read_tasks(given, answered=False, present=False):
            if task.id in tasks:
                raise UsageError(
                    f"{given}: the id {task.id!r} is already used by another item",
                    hint="results are matched by id, so every id must be unique",
                )
            tasks[task.id] = task
    return list(tasks.values())


def find_videos(
    inputs: Sequence[str],
    lines: Iterable[str],
    events: Events = SILENT,
    *,
    patterns: Patterns = NO_PATTERNS,
    null: bool = False,
) -> list[str]:
    """Files named, files in folders (by suffix, recursively), those of patterns, a list for "-".

    Each file once, in the order it was first named; a warning names folders that add nothing.
    `patterns` choose among the files of folders; `null` says that names in the list end in NUL.
    Raises UsageError where nothing is found at all, and for a glob pattern without matches.
    """
    found: dict[str, None] = {}
    empty = []
    for given in inputs:
        if given == "-":
            here = listed(lines, null=null)
        elif os.path.isdir(given):
            here = _videos(given, map(str, _walk(Path(given), patterns, events)), events)
        elif glob.has_magic(given) and not os.path.lexists(given):
            matching = list(_matching(given))
            if not matching:
                raise missing(given)
            here = _videos(given, matching, events)
        else:
            here = [given]
        found.update(dict.fromkeys(here))
        if not here:
            empty.append(given)
    for pattern in patterns.unused():
        events.warn(f"{pattern}: matches nothing in the input folders")
    if not found:
        raise UsageError(
            f"no videos in {', '.join(inputs)}",
            hint="give folders, files, patterns, or - for a list of files on stdin",
        )
    for given in empty:
        events.warn(f"no videos in {given}")
    return list(found)


def folder_below(folders: Sequence[str], video: str) -> str:
    """The folder of a video below the first of these folders that holds it, "" if none does."""
    for folder in folders:
        with suppress(ValueError):
            below = Path(video).parent.relative_to(folder).as_posix()
            return "" if below == "." else below
    return ""


def is_tasks(given: str) -> bool:
    """Whether an input is a file of tasks."""
    return given.lower().endswith(".jsonl") and not os.path.isdir(given)


def _each(given: str) -> list[str]:
    """The task files that match a pattern; one without matches fails when it is read."""
    if not glob.has_magic(given) or os.path.lexists(given):
        return [given]
    return list(_matching(given)) or [given]


def seen_from(base: Path, video: str) -> str:
    """The path from a folder; so results are found again where both were moved together."""
    try:
        return Path(os.path.relpath(video, base)).as_posix()
    except ValueError:  # another drive, or a name that is none
        return video


def _videos(given: str, found: Iterable[str], events: Events) -> list[str]:
    """Those found that may be videos; a warning names others that end as videos do."""
    paths = list(found)
    others = [path for path in paths if not_a_stream(path)]
    if others:
        what = (
            f"{others[0]} is" if len(others) == 1 else f"{others[0]} and {len(others) - 1} more are"
        )
        events.warn(
            f"{given}: {what} not MPEG-TS and skipped; pass a file by name to try it anyway"
        )
    return [path for path in paths if path not in set(others)]


def _walk(folder: Path, patterns: Patterns, events: Events) -> Iterator[Path]:
    """Videos in a folder and those below, nothing hidden; links to folders are not followed.

    Only those that `patterns` choose; excluded folders are not entered.
    """

    def unreadable(error: OSError) -> None:
        events.warn(f"{error.filename}: cannot be read: {error.strerror}")

    for parent, folders, names in os.walk(folder, onerror=unreadable):
        below = Path(parent).relative_to(folder)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and patterns.enters(below / name)
        )
        for name in folders:
            if os.path.islink(Path(parent, name)):
                events.warn(f"{Path(parent, name)}: is a link to a folder and is not followed")
        for name in sorted(names):
            is_video = Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".")
            if not is_video or not patterns.takes(below / name):
                continue
            path = Path(parent, name)
            if (kind := kind_of(path)) in ("a file", ""):  # a link to nothing is a missing video
                yield path
            else:
                events.warn(f"{path}: is {kind} and is not read")


def _matching(pattern: str) -> Iterator[str]:
    """Files that fit; one that does not say which suffix is for videos alone."""
    exact = bool(Path(pattern).suffix)
    for path in sorted(_found(pattern)):
        known = exact or Path(path).suffix.lower() in VIDEO_SUFFIXES
        if known and not os.path.isdir(path):
            yield path


def _found(pattern: str) -> Iterator[str]:
    """Paths that fit, nothing hidden; `**` follows no links to folders, which may be loops."""
    path = Path(pattern, "*") if pattern.endswith("**") else Path(pattern)
    top = Path(path.anchor)
    for found in top.glob(str(path.relative_to(top))):
        if not any(part.startswith(".") and part != ".." for part in found.parts):
            yield str(found)
