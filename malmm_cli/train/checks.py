"""Errors in data, disk space or folders, found before the first step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from malmm_cli import media
from malmm_cli.errors import CapacityError, MediaError, OutputError, UsageError
from malmm_cli.events import Events
from malmm_cli.formats import check_new_folder
from malmm_cli.hub import size_text
from malmm_cli.media.sampling import choose_for
from malmm_cli.models.base import Trainable
from malmm_cli.settings import Defaults, Settings, prompts_for
from malmm_cli.train.features import Chosen, Clip
from malmm_cli.train.samples import Sample
from malmm_cli.types import Task

__all__ = [
    *("as_sample", "check_folder", "check_gradient", "check_lengths", "check_room"),
    *("choose_frames", "held"),
]

MARK = ".malmm-train"  # in a folder that a run has begun to fill; locked while one does
SHOWN = 5  # problems reported at once


def as_sample(task: Task, defaults: Defaults) -> Sample:
    """A task with the prompt that `malmm ask` or `malmm caption` would give it by default."""
    prompt = task.prompt or defaults.tasks["caption"].prompt
    if task.question is not None:
        prompt = prompts_for([task.question], defaults.tasks["ask"])[0]
    return Sample(task.id, Clip(task.video, task.start, task.end), prompt, task.answers)


def check_folder(folder: Path, training: Path) -> None:
    """Raise UsageError for a folder in which another run is at work, or something else lies."""
    if os.path.exists(training / MARK):
        with held(training):
            return
    check_new_folder(folder)


def check_gradient(settings: Settings, position_gradient: str | None) -> None:
    """Raise UsageError where the position table cannot learn at every frame.

    An entry's count tells its share of each frame only for a weighted mean.
    """
    memory = settings.memory
    merges = memory.keeps_visual and memory.policy in ("mbc", "random")
    if merges and memory.mean == "plain" and position_gradient == "all":
        raise UsageError(
            "--mean plain: the position table cannot learn at every frame",
            hint="use --position-gradient last",
        )


@contextmanager
def held(training: Path) -> Iterator[None]:
    """Mark the folder of a run, and have it alone; UsageError where another run has it."""
    lock = FileLock(training / MARK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            f"{training.parent}: another training is writing to it",
            hint="wait until it ends, or choose another folder",
            kind="Busy",
        ) from None
    except (OSError, NotImplementedError) as error:
        raise OutputError(f"{training / MARK}: cannot be locked: {error}") from error
    try:
        yield
    finally:
        lock.release()
        (training / MARK).touch()  # Windows removes what was locked


def choose_frames(
    clips: Mapping[Clip, str], settings: Settings, events: Events
) -> dict[Clip, Chosen]:
    """The frames to look at of each clip, which comes with the id of a task about it.

    MediaError names the tasks whose videos are unreadable or shorter than the task's start.
    """
    found: dict[Clip, Chosen] = {}
    problems: list[MediaError] = []
    for done, (clip, task) in enumerate(clips.items(), start=1):
        try:
            info = media.probe(clip.video, settings.sampling.decoder)
            own = replace(settings.sampling, start=clip.start, end=clip.end)
            times = choose_for(info, own).tolist()
            found[clip] = Chosen(info.decoder, tuple(times))
        except (MediaError, UsageError) as error:
            reason = error.message.removeprefix(f"{clip.video}: ")
            message = f"id {task!r}: {clip.video}: {reason}"
            problems.append(MediaError(message, hint=error.hint, kind=error.kind))
        events.progress("checking", done, len(clips), "videos")
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        listed = "; ".join(error.message for error in problems[:SHOWN])
        raise MediaError(f"{listed}{more}", hint=problems[0].hint, kind=problems[0].kind)
    return found


def check_lengths(
    net: Trainable[Any],
    samples: Sequence[Sample],
    chosen: dict[Clip, Chosen],
    settings: Settings,
    *,
    new: int = 0,
) -> None:
    """Raise CapacityError for a sample that the language model cannot read as a whole.

    `new` tokens may come after each prompt, where its own answers are shorter.
    """
    limit, memory = net.spec.context, settings.memory
    every = memory.gives_every_frame
    if limit is None:
        return
    for sample in samples:
        assert isinstance(sample.clip, Clip)
        features = net.spec.features(len(chosen[sample.clip].times))
        visual = net.visual_tokens(memory, features)
        length = net.text_tokens(sample.prompt, sample.answers)
        if new:
            length = max(length, net.text_tokens(sample.prompt) + new)
        if visual + length > limit:
            shorter = replace(memory, length=1)
            remedy = ", or use a memory: --memory 20" if every else ""
            if not every and net.visual_tokens(shorter, features) < visual:
                remedy = ", or use a shorter --memory"
            raise CapacityError(
                f"{sample.id}: {visual} visual tokens and {length} text tokens make "
                f"{visual + length}; the language model reads {limit}",
                hint="shorten the text" + remedy,
            )


def check_room(folders: Sequence[tuple[Path, int]]) -> None:
    """Raise CapacityError where a disk has no room for the bytes that will be written to it."""
    needs: dict[int, tuple[Path, int]] = {}
    for folder, size in folders:
        while not folder.exists():
            folder = folder.absolute().parent
        first, before = needs.get(folder.stat().st_dev, (folder, 0))
        needs[folder.stat().st_dev] = (first, before + size)
    for folder, size in needs.values():
        free = shutil.disk_usage(folder).free
        if size > free:
            raise CapacityError(
                f"{folder}: {size_text(size)} needed, but only {size_text(free)} free",
                hint="free up disk space, choose another folder, or use --no-cache",
            )
