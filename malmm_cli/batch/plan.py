"""What a batch has to do: tasks and settings, compared with the existing output."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

from malmm_cli.batch.job import Job
from malmm_cli.batch.lines import Line
from malmm_cli.files.fingerprint import is_same
from malmm_cli.settings import Settings, changed, prompts_for
from malmm_cli.types import Task

__all__ = ["PERMANENT", "Planned", "Sorted", "jobs", "plan", "sort_out"]

NEW, FAILED, SETTINGS, VIDEO = "new", "failed before", "other settings", "another file"

# Kinds of errors that the file itself causes: the same file fails again with the same settings.
PERMANENT = frozenset(
    "BrokenLink BrokenMemory CoverOnly CutOff Empty NoPicture".split()
    + "NotAVideo Playlist SoundOnly Unsupported".split()
)


@dataclass(frozen=True)
class Planned:
    """A task, how to do it, and the name of all that decides its result besides the video.

    In an output folder, its file goes to the folder `below` that.
    """

    task: Task
    settings: Settings
    digest: str
    below: str = ""


@dataclass(frozen=True)
class Sorted:
    """Items to do and why; those done; those done whose video is gone, so that they are kept.

    `broken` are items that failed before because of their file, which has not changed.
    """

    todo: list[tuple[Planned, str]]
    done: list[Planned]
    gone: list[Planned]
    broken: list[Planned]


def plan(
    tasks: Sequence[Task], captions: Settings, questions: Settings, identity: Mapping[str, Any]
) -> list[Planned]:
    """Give tasks their settings; `identity` says which model. Raises UsageError for wrong ones."""

    @cache  # most tasks are alike
    def decide(
        question: str | None, prompt: str | None, start: float | None, end: float | None
    ) -> tuple[Settings, str]:
        base = captions if question is None else questions
        own = {"prompt": prompt, "start": start, "end": end}
        settings = changed(base, **{n: v for n, v in own.items() if v is not None})
        if question is not None:
            prompts_for([question], settings)
        content = json.dumps([dict(identity), settings.as_dict(), question], sort_keys=True)
        return settings, hashlib.sha256(content.encode()).hexdigest()[:16]

    return [Planned(t, *decide(t.question, t.prompt, t.start, t.end)) for t in tasks]


def sort_out(
    planned: Sequence[Planned], kept: Mapping[str, Line], *, retry_failed: bool = False
) -> Sorted:
    """Compare the requested items with the existing output and with the files as they are.

    `retry_failed` also retries items that failed because of their file.
    """
    found = Sorted([], [], [], [])

    @cache  # several tasks about one video
    def same(video: str, identity: str) -> bool | None:
        try:
            return is_same(video, identity)
        except (OSError, ValueError):
            return None

    failed = []  # after what was never tried, so that --limit comes to that too
    for item in planned:
        line = kept.get(item.task.id)
        if line is None:
            found.todo.append((item, NEW))
            continue
        if line.failed or line.identity is None:
            known = line.kind in PERMANENT and line.settings == item.digest and not retry_failed
            if known and line.identity and same(item.task.video, line.identity):
                found.broken.append(item)
            else:
                failed.append((item, FAILED))
            continue
        alike = same(item.task.video, line.identity)
        if alike is None:
            found.gone.append(item)
        elif line.settings != item.digest:
            found.todo.append((item, SETTINGS))
        elif not alike:
            found.todo.append((item, VIDEO))
        else:
            found.done.append(item)
    found.todo.extend(failed)
    return found


def jobs(planned: Sequence[Planned]) -> Iterator[Job]:
    """Neighbours about one video with the same settings go together; captions go alone."""

    def alike(item: Planned) -> tuple[Any, ...]:
        task = item.task
        return (task.video, item.settings, task.id if task.question is None else None)

    for _, group in groupby(planned, key=alike):
        items = list(group)
        tasks, digests = tuple(i.task for i in items), tuple(i.digest for i in items)
        yield Job(tasks, items[0].settings, digests)
