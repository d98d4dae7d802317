"""Many scenes as a folder: videos, and one JSON line per question."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from malmm_cli.datasets.synthetic.drawing import render
from malmm_cli.datasets.synthetic.scene import COLOURS, Scene
from malmm_cli.datasets.synthetic.telling import caption, questions
from malmm_cli.datasets.synthetic.video import write_mp4
from malmm_cli.datasets.synthetic.worlds import scenario
from malmm_cli.datasets.tasks import task_as_json
from malmm_cli.errors import OutputError, UsageError
from malmm_cli.events import SILENT, Events
from malmm_cli.files.atomic import RERUN, new_file, remove_leftovers
from malmm_cli.files.schema import checked
from malmm_cli.files.strict_json import load
from malmm_cli.types import Task

__all__ = ["World", "write_dataset"]

ABANDONED = 3600  # seconds without a write


@dataclass(frozen=True)
class World:
    """Everything that decides a data set; `minutes` are the shortest and the longest video's."""

    videos: int
    seed: int = 0
    minutes: tuple[float, float] = (1.0, 2.0)
    split: str = "test"
    questions: int = 10
    events: int | None = None
    colours: tuple[str, ...] = COLOURS
    fps: float = 8.0
    world: str = "plain"

    def scene(self, index: int) -> Scene:
        """The scene of a video by its number, from 0."""
        number = self.seed * 1_000_003 + index
        shortest, longest = self.minutes
        minutes = random.Random(number).uniform(shortest, longest)
        return scenario(
            number,
            round(minutes * 60, 1),
            split=self.split,
            events=self.events,
            colours=self.colours,
            world=self.world,
        )


def write_dataset(world: World, folder: Path, events: Events = SILENT) -> list[Task]:
    """Write videos/*.mp4, data.jsonl (tasks) and events.jsonl into folder; return the tasks.

    A folder that was left unfinished is finished. Raises UsageError for a folder that holds
    anything else, OutputError where nothing can be written.
    """
    _check(world)
    settings = folder / "world.json"
    content = json.dumps(asdict(world), indent=2) + "\n"
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise UsageError(f"{folder} is not a folder", hint="choose a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not settings.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty", hint="choose a new folder")
        if settings.exists() and settings.read_text(encoding="utf-8") != content:
            raise UsageError(
                f"{folder} was made with other settings: {_changed(settings, content)}",
                hint="choose another folder, or use the original settings",
            )
        _write(settings, content)
        (folder / "videos").mkdir(exist_ok=True)
        for parent in (folder, folder / "videos"):
            remove_leftovers(parent, older_than=ABANDONED)  # another run may be at work
        tasks, scenes = [], []
        with events.stage("synth", "videos"):
            for index in range(world.videos):
                scene = world.scene(index)
                name = f"videos/{index:05d}.mp4"
                if not (folder / name).exists():
                    write_mp4(render(scene, world.fps), folder / name, world.fps)
                tasks += _tasks(world, scene, index, name)
                scenes.append({"video": name, **asdict(scene)})
                events.progress("synth", index + 1, world.videos, "videos")
        _write(folder / "events.jsonl", _lines(scenes))
        _write(folder / "data.jsonl", _lines([task_as_json(task) for task in tasks]))
        _check_there(folder, [scene["video"] for scene in scenes])
    except OSError as error:
        message = f"cannot write {folder}: {error.strerror or error}"
        raise OutputError(message, hint="free up disk space, or choose another folder") from error
    return tasks


def _check_there(folder: Path, videos: Sequence[str]) -> None:
    """Raise OutputError if a written file was removed or replaced."""
    for name in (*videos, "events.jsonl", "data.jsonl"):
        if not (path := folder / name).is_file():
            raise OutputError(f"{path}: removed or replaced while being written", hint=RERUN)


def _changed(settings: Path, content: str) -> str:
    """Where the settings in a file differ from `content`."""
    try:
        before, now = (
            asdict(checked(load(text), World)) for text in (settings.read_bytes(), content)
        )
    except ValueError:
        before = now = {}
    differ = [
        f"--{name} {_plain(before[name])}, not {_plain(now[name])}"
        for name in now
        if before[name] != now[name]
    ]
    return "; ".join(differ) or f"see {settings.name} in it"


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else f"{value}"


def _check(world: World) -> None:
    if world.videos < 1:
        raise UsageError(f"--videos {world.videos}: must be at least 1")
    if world.questions < 0:
        raise UsageError(f"--questions {world.questions}: must be 0 or more")
    if not 1 <= world.fps <= 60:
        raise UsageError(f"--fps {world.fps:g}: must be between 1 and 60")
    if not world.minutes[0] <= world.minutes[1]:
        raise UsageError("--minutes: put the shorter length first, as in 1-2")
    for minutes in world.minutes:  # raises before the first video if the settings are impossible
        scenario(
            *(world.seed, minutes * 60),
            split=world.split,
            events=world.events,
            world=world.world,
        )
    world.scene(0)


def _tasks(world: World, scene: Scene, index: int, video: str) -> list[Task]:
    name = f"{world.seed}-{index:05d}"
    first = Task(
        id=f"{name}-caption",
        video=video,
        answers=(caption(scene),),
        kind="caption",
        evidence=(scene.events[0].start, scene.events[-1].end),
    )
    asked = questions(scene, world.questions, colours=world.colours)
    return [first] + [
        Task(
            id=f"{name}-{number}",
            video=video,
            question=one.question,
            answers=(one.answer,),
            kind=one.kind,
            evidence=one.evidence,
        )
        for number, one in enumerate(asked, start=1)
    ]


def _lines(objects: Sequence[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(content)}\n" for content in objects)


def _write(path: Path, text: str) -> None:
    with new_file(path) as file:
        file.write(text.encode())
