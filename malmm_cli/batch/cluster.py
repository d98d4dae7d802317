"""Workers on a Ray cluster: the same worker as on one machine, one to a GPU, placed by Ray.

What was under way when a node died is done again on another one. Only the process that asks writes;
nodes need the package, the model and the videos, each under the same name as here.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from malmm_cli.batch.job import Job, Outcome, Work, as_malmm_error, failed
from malmm_cli.batch.pool import GRACE, Start, crashed, late
from malmm_cli.errors import MalmmError, ModelError, UsageError
from malmm_cli.events import SILENT, Events
from malmm_cli.formats import Failure

__all__ = ["run"]

OFTEN = 2  # a job whose worker dies so often is to blame, and so is a start


def run(
    next_job: Callable[[], Job | None],
    start: Start,
    *,
    address: str = "auto",
    workers: int | None = None,
    timeout: float = math.inf,
    model: str = "model",
    events: Events = SILENT,
) -> Iterator[tuple[Job, Outcome]]:
    """Do jobs on the cluster at an address, as `Engine` has it; "auto" is the one on this machine.

    By default there are as many `workers` as GPUs or, without any, nodes. `events` gets a stage
    until the first of them has its `model`. Raises UsageError where
    Ray or the cluster is not there, and the error of a worker that cannot start.
    """
    lost: deque[Job] = deque()

    def take() -> Job | None:
        return lost.popleft() if lost else next_job()

    first = take()
    if first is None:
        return
    lost.append(first)
    ray = _connect(address)
    loading = ExitStack()
    loading.enter_context(events.stage(f"{model}: loading", ""))
    numbers = range(workers or _places(ray))
    slots = [_Slot(ray, start, number, events, loading.close) for number in numbers]
    try:
        while True:
            for slot in slots:
                if slot.idle and (job := take()):
                    slot.give(job)
            if not any(slot.job for slot in slots):
                job = take()
                if job is None:
                    return
                lost.append(job)  # no actor is there yet
            deadline = min(slot.begun for slot in slots) + timeout + GRACE
            left = None if deadline == math.inf else max(deadline - time.monotonic(), 0.0)
            waiting = [slot.answer for slot in slots if slot.answer is not None]
            ready, _ = ray.wait(waiting, timeout=left)
            for slot in slots:
                if slot.answer in ready:
                    yield from slot.hear(lost)
                elif not ready and slot.begun <= deadline:
                    yield slot.give_up(timeout)
    finally:
        loading.close()
        for slot in slots:
            slot.stop()


def _connect(address: str) -> Any:
    """Ray, connected to the cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UsageError("--ray needs Ray", hint="pip install 'malmm[ray]'") from error
    try:
        if not ray.is_initialized():
            _check_reachable(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"--ray {address}: no cluster found: {str(error).splitlines()[0]}",
            hint="`ray start --head` starts one",
        ) from error
    return ray


def _check_reachable(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _places(ray: Any) -> int:
    gpus = int(ray.cluster_resources().get("GPU", 0))
    return gpus or sum(node["Alive"] for node in ray.nodes())


class _Actor:
    """The worker, as Ray has it."""

    def __init__(self) -> None:
        self._work: Work | None = None

    def start(self, start: Start, number: int) -> str | MalmmError:
        """Load the model; says which, or why not."""
        try:
            self._work = start(number)
        except Exception as error:
            return as_malmm_error("the worker", error)
        return self._work.description

    def do(self, job: Job) -> Outcome:
        """As `Work` has it."""
        assert self._work is not None
        return self._work(job)


class _Slot:
    """A place for one actor after the other, and the job that the present one has.

    `loaded` is called whenever an actor has its model.
    """

    def __init__(
        self, ray: Any, start: Start, number: int, events: Events, loaded: Callable[[], None]
    ) -> None:
        self.job: Job | None = None
        self.begun = math.inf  # when the job did
        self.answer: Any = None  # what is awaited of the actor
        self._ray, self._start, self._number = ray, start, number
        self._events, self._loaded = events, loaded
        self._starts = 0  # that came to nothing
        self._begin()

    @property
    def idle(self) -> bool:
        """Whether the actor is there and has nothing to do."""
        return self.answer is None

    def give(self, job: Job) -> None:
        """Have the actor do a job; the nodes may have another folder to work in."""
        self.job, self.begun = job, time.monotonic()
        self._events.started(job.video)
        tasks = tuple(replace(task, video=os.path.abspath(task.video)) for task in job.tasks)
        self.answer = self._actor.do.remote(replace(job, tasks=tasks))

    def hear(self, lost: deque[Job]) -> Iterator[tuple[Job, Outcome]]:
        """The job that is done, if one is; what a dead actor had goes to those that are lost."""
        job = self.job
        try:
            said: Any = self._ray.get(self.answer)
        except self._ray.exceptions.RayError as error:
            yield from self._died(lost, error)
            return
        self.job, self.begun, self.answer = None, math.inf, None
        if isinstance(said, MalmmError):
            raise said
        if job is not None:
            yield job, _as_given(job, said)
            return
        self._starts = 0
        self._loaded()
        self._events.note(said)

    def give_up(self, timeout: float) -> tuple[Job, Outcome]:
        """Kill the actor, which takes too long."""
        job, begun = self.job, self.begun
        assert job is not None
        self.stop()
        self._begin()
        return job, failed(job, late(job, timeout), time.monotonic() - begun)

    def stop(self) -> None:
        """End the actor, and what it does."""
        self._ray.kill(self._actor)

    def _begin(self) -> None:
        gpus = 1 if self._ray.cluster_resources().get("GPU") else 0
        actor = self._ray.remote(num_cpus=1, num_gpus=gpus)(_Actor)
        self._actor = actor.remote()
        self.job, self.begun = None, math.inf
        self.answer = self._actor.start.remote(self._start, self._number)

    def _died(self, lost: deque[Job], error: Exception) -> Iterator[tuple[Job, Outcome]]:
        how = str(error).strip().splitlines()[0]
        job = self.job
        self._starts += job is None
        if self._starts >= OFTEN:
            raise ModelError(f"the model could not be loaded: {how}") from error
        self._begin()
        if job is not None and job.deaths + 1 >= OFTEN:
            yield job, failed(job, crashed(job, how))
        elif job is not None:
            lost.append(replace(job, deaths=job.deaths + 1))


def _as_given(job: Job, outcome: Outcome) -> Outcome:
    """The outcome with the video called as in the job."""
    items = tuple(
        Failure(job.video, item.task, item.error)
        if isinstance(item, Failure)
        else replace(item, video=job.video)
        for item in outcome.items
    )
    return replace(outcome, items=items)
