"""The values of a batch: jobs, their results and the workers that did them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from malmm_cli.errors import MalmmError
from malmm_cli.formats import Failure, Item
from malmm_cli.media.files import shown
from malmm_cli.settings import Settings
from malmm_cli.types import Result, Task

__all__ = ["Engine", "Job", "Outcome", "Work", "as_malmm_error", "attempt", "failed"]


@dataclass(frozen=True)
class Job:
    """Tasks about one video with the same settings, decoded once: a caption, or questions.

    `digests` name what decides each result besides the video; `tries` counts from 1, `deaths` the
    workers that were lost over it.
    """

    tasks: tuple[Task, ...]
    settings: Settings
    digests: tuple[str, ...]
    tries: int = 1
    deaths: int = 0

    @property
    def video(self) -> str:
        """The file."""
        return self.tasks[0].video

    @property
    def kind(self) -> str:
        """What output calls it."""
        return "caption" if self.tasks[0].question is None else "ask"


@dataclass(frozen=True)
class Outcome:
    """One item for each task of a job; `identity` of the file, where it could be read.

    It took `seconds`, and the worker then held `memory` bytes.
    """

    items: tuple[Item, ...]
    identity: str | None = None
    seconds: float = 0.0
    memory: int = 0

    @property
    def error(self) -> MalmmError | None:
        """Why there is no result, of the first item that has none."""
        return next((item.error for item in self.items if isinstance(item, Failure)), None)


class Work(Protocol):
    """What a worker does with a job, once it holds a model; `description` says which, and where."""

    description: str

    def __call__(self, job: Job) -> Outcome:
        """Do it; an error of the video is part of the outcome."""


# An engine asks for the next job, None for none at present, and yields each when it is done. It is
# through when nothing is under way and there is still none. It has events, and tells them which
# video a worker begins.
Engine = Callable[[Callable[[], Job | None]], Iterator[tuple[Job, Outcome]]]


def attempt(video: str, work: Callable[[str], Result], task: str) -> Item:
    """The result of a video, or its failure: a bad video never stops the rest."""
    try:
        return work(video)
    except Exception as error:
        return Failure(video, task, _with_video(video, as_malmm_error(video, error)))


def failed(job: Job, error: MalmmError, seconds: float = 0.0) -> Outcome:
    """What becomes of a job that has no result, after so many seconds."""
    named = _with_video(job.video, error)
    items = tuple(Failure(job.video, job.kind, named) for _ in job.tasks)
    return Outcome(items, seconds=seconds)


def _with_video(video: str, error: MalmmError) -> MalmmError:
    """The error, which names its video: among many, a reader has nothing else to know it by."""
    if video in error.message or shown(video) in error.message:
        return error
    message = f"{shown(video)}: {error.message}"
    return type(error)(message, hint=error.hint, kind=error.kind)


def as_malmm_error(video: str, error: Exception) -> MalmmError:
    """An error for the user: as it is, or, a fault of ours or of a strange file, in words."""
    if isinstance(error, MalmmError):
        return error
    return MalmmError(f"{video}: {type(error).__name__}: {error}", kind="Unexpected")
