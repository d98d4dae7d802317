"""Batches without a model: workers that do as the name of a video says, in a process of their own.

    python tests/helpers/batches.py OUTPUT VIDEO... [--workers N] [--timeout S] [--slow S]

does them and says how it went; it is what tests kill.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from malmm_cli.batch import loop, pool
from malmm_cli.batch.job import Engine, Job, Outcome, failed
from malmm_cli.batch.ledger import open_ledger
from malmm_cli.batch.lines import read_lines
from malmm_cli.batch.paths import OutputPaths, output_paths
from malmm_cli.batch.plan import Planned, jobs, plan, sort_out
from malmm_cli.errors import MediaError
from malmm_cli.events import SILENT, Events
from malmm_cli.files.fingerprint import identity
from malmm_cli.models.instructblip.defaults import ASK, CAPTION
from malmm_cli.settings import Settings
from malmm_cli.types import Result, Segment, Task


def result(task: Task, settings: Settings = CAPTION) -> Result:
    """What a model might say."""
    text = f"a text about {task.video}, {task.question}"
    return Result(
        video=task.video,
        task="caption" if task.question is None else "ask",
        prompt=settings.prompt,
        question=task.question,
        text=text,
        candidates=(text,),
        segments=(Segment(0.0, 1.0, text),),
        model="none",
        revision=None,
        device="cpu",
        dtype="float32",
        memory=2,
        policy="mbc",
        banks="both",
        frames=2,
        first=0.0,
        last=1.0,
        duration=1.0,
        seconds={"decode": 0.1},
    )


class Actor:
    """A worker that obeys the first word of a file's name: kill, hang, fail, slow or what else."""

    description = "an actor"

    def __init__(self, slow: float, log: str | None) -> None:
        self.slow, self.log = slow, log

    def __call__(self, job: Job) -> Outcome:
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{job.video}\n")
        word = Path(job.video).stem.split("-")[0]
        if word == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "fault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if word == "hang":
            time.sleep(3600)
        time.sleep(self.slow)
        if word == "fail":
            return failed(job, MediaError(f"{job.video}: not a video", kind="NotAVideo"))
        return Outcome(tuple(result(t) for t in job.tasks), identity(job.video), 0.01, 10**6)


def start(slow: float, log: str | None, number: int) -> Actor:
    return Actor(slow, log)


def files(*names: str) -> list[str]:
    """Write a file of each name, and return the names."""
    for name in names:
        Path(name).write_text(name)
    return list(names)


def broken(number: int) -> Actor:
    raise MediaError("no worker today")


def planned(names: Sequence[Path | str], **model: Any) -> list[Planned]:
    tasks = [Task(str(name), str(name)) for name in names]
    return plan(tasks, CAPTION, ASK, {"model": "none", **model})


def run_batch(
    paths: OutputPaths,
    items: Sequence[Planned],
    *,
    engine: Engine | None = None,
    slow: float = 0.0,
    log: str | None = None,
    retry: int = 0,
    overwrite: bool = False,
    events: Events = SILENT,
    **how: Any,
) -> loop.Tally:
    """One run, in this process but for its workers."""
    engine = engine or partial(pool.run, start=partial(start, slow, log), events=events, **how)
    with paths.locked():
        if overwrite:
            paths.clear()
        lines = read_lines(paths.results)
        todo = [item for item, _ in sort_out(items, lines.kept).todo]
        more = {"overwrite": overwrite, "events": events}
        with open_ledger(paths, lines, items, todo, how.get("workers", 1), **more) as ledger:
            return loop.run(jobs(todo), engine, ledger, retry=retry, events=events)


def inline(next_job: Any, events: Events = SILENT) -> Any:
    """An engine in this process."""
    actor = Actor(0.0, None)
    while job := next_job():
        events.started(job.video)
        yield job, actor(job)


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_bytes().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output")
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=math.inf)
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--log")
    given = parser.parse_args()
    tally = run_batch(
        output_paths(given.output),
        planned(given.videos),
        slow=given.slow,
        log=given.log,
        workers=given.workers,
        timeout=given.timeout,
    )
    print(tally.done, tally.failed, file=sys.stderr)


if __name__ == "__main__":
    main()
