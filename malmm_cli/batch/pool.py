"""Worker processes on this machine, restarted when they crash, hang or are killed.

Each is sent one job at a time; the first that is idle gets the next.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from malmm_cli.batch.job import Job, Outcome, Work, as_malmm_error, failed
from malmm_cli.errors import MalmmError, MediaError, ModelError, UsageError
from malmm_cli.events import SILENT, Events
from malmm_cli.files.fingerprint import link_identity
from malmm_cli.media.files import check
from malmm_cli.processes.children import UNGUARDED, begin_apart, exit_of, start_apart
from malmm_cli.processes.ending import kill_tree

__all__ = ["GRACE", "Start", "crashed", "late", "run"]

GRACE = 10.0  # seconds that a worker has, beyond its time, to see for itself that it is over

Start = Callable[[int], Work]


ABSENT = ("Missing", "BrokenLink")  # kinds of errors about videos that are not there


def run(
    next_job: Callable[[], Job | None],
    start: Start,
    *,
    workers: int = 1,
    timeout: float = math.inf,
    model: str = "model",
    events: Events = SILENT,
) -> Iterator[tuple[Job, Outcome]]:
    """Do jobs in processes of their own; the rest is as `Engine` has it.

    `start`, which must be picklable, makes the worker of a number in its process. One that crashes
    or takes longer than `timeout` seconds fails its job, and another one takes its place. A video
    that does not exist needs no worker.
    `events` gets a stage until the first worker has its `model`, and a note of each worker's.
    Raises the error of a worker that cannot start.
    """
    loading = ExitStack()
    slots = [_Slot(number, start, events, loading.close) for number in range(workers)]
    begun = False
    try:
        while True:
            for slot in slots:
                while slot.job is None and (job := next_job()):
                    if error := _missing(job.video):
                        yield job, replace(failed(job, error), identity=link_identity(job.video))
                        continue
                    if not begun:
                        loading.enter_context(events.stage(f"{model}: loading", ""))
                    begun = True
                    slot.give(job)
            busy = {slot.talk: slot for slot in slots if slot.job}
            if not busy:
                return
            deadline = min(slot.begun for slot in busy.values()) + timeout + GRACE
            left = deadline - time.monotonic()
            ready = wait(list(busy), None if left == math.inf else max(left, 0.0))
            done = [slot.hear() for talk, slot in busy.items() if talk in ready]
            if not ready:
                done = [slot.give_up(timeout) for slot in busy.values() if slot.begun <= deadline]
            yield from filter(None, done)
    finally:
        loading.close()
        for slot in slots:
            slot.stop()


def _missing(video: str) -> MediaError | None:
    """The error of a video that does not exist; others are left to a worker, which reads them."""
    if os.path.exists(video):
        return None
    try:
        check(video)
    except MalmmError as error:
        return error if isinstance(error, MediaError) and error.kind in ABSENT else None
    return None


class _Slot:
    """A place for one worker after the other, and the job that the present one has.

    `loaded` is called whenever a worker has its model.
    """

    def __init__(
        self, number: int, start: Start, events: Events, loaded: Callable[[], None]
    ) -> None:
        self.job: Job | None = None
        self.begun = math.inf  # when the job did
        self.talk: Connection
        self._number, self._start = number, start
        self._events, self._loaded = events, loaded
        self._process: BaseProcess | None = None

    def give(self, job: Job) -> None:
        """Have the worker do a job; start one first where there is none."""
        self.job = job
        if self._process is not None:
            self._send()
            return
        self._process, self.talk = start_apart(_serve, self._start, self._number)

    def hear(self) -> tuple[Job, Outcome] | None:
        """The job that is done, with what became of it; None if the worker has only started."""
        assert self.job is not None
        assert self._process is not None
        job, begun = self.job, self.begun
        try:
            said: Any = self.talk.recv()
        except (EOFError, OSError):
            how, code = exit_of(self._process), self._process.exitcode
            self.stop()
            if begun == math.inf and code == UNGUARDED:
                raise UsageError(
                    "batch.run() starts workers, which import this script and would run it again",
                    hint='put the call below `if __name__ == "__main__":`',
                ) from None
            if begun == math.inf:  # it had only started
                raise ModelError(f"the model could not be loaded: {how}") from None
            return job, failed(job, crashed(job, how), time.monotonic() - begun)
        if isinstance(said, MalmmError):
            raise said
        if isinstance(said, str):
            self._loaded()
            self._events.note(said)
            self._send()
            return None
        self.job, self.begun = None, math.inf
        return job, said

    def give_up(self, timeout: float) -> tuple[Job, Outcome]:
        """Kill the worker, which takes too long."""
        assert self.job is not None
        job, begun = self.job, self.begun
        self.stop()
        return job, failed(job, late(job, timeout), time.monotonic() - begun)

    def stop(self) -> None:
        """End the worker, and what it does."""
        if self._process is not None:
            kill_tree(self._process)
            self.talk.close()
        self._process, self.job, self.begun = None, None, math.inf

    def _send(self) -> None:
        assert self.job is not None
        self.begun = time.monotonic()
        self._events.started(self.job.video)
        with suppress(OSError):  # it died; hearing tells of it
            self.talk.send(self.job)


def crashed(job: Job, how: str) -> MalmmError:
    """The error of a job whose worker died."""
    return MediaError(f"{job.video}: the worker crashed: {how}", kind="Crashed")


def late(job: Job, timeout: float) -> MalmmError:
    """The error of a job that took too long."""
    return MediaError(f"{job.video}: took longer than {timeout:g} s", kind="Timeout")


def _serve(talk: Connection, start: Start, number: int) -> None:
    """The worker's process: tells of its model, then answers until its parent is gone."""
    begin_apart()
    with suppress(EOFError, OSError):
        try:
            work = start(number)
        except Exception as error:
            talk.send(as_malmm_error("the worker", error))
            return
        talk.send(work.description)
        while True:
            talk.send(work(talk.recv()))
