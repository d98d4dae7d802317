"""The loop of a batch: hands jobs to workers and their results to the ledger."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from malmm_cli.batch.job import Engine, Job, Outcome
from malmm_cli.batch.ledger import Ledger
from malmm_cli.errors import MalmmError
from malmm_cli.events import SILENT, Events
from malmm_cli.types import Result

__all__ = ["Tally", "run"]


@dataclass
class Tally:
    """How many items are done and failed, the seconds of workers, and errors by video and kind."""

    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    errors: dict[str, MalmmError] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, job: Job, outcome: Outcome) -> None:
        """Count what became of a job."""
        self.seconds += outcome.seconds
        if outcome.error is None:
            self.done += len(outcome.items)
            return
        self.failed += len(outcome.items)
        self.errors[job.video] = outcome.error
        self.kinds[outcome.error.kind] += len(outcome.items)


def run(
    todo: Iterable[Job],
    engine: Engine,
    ledger: Ledger,
    *,
    retry: int = 0,
    fail_fast: bool = False,
    events: Events = SILENT,
) -> Tally:
    """Do all jobs and have what becomes of them in the ledger; one that fails is tried again last.

    `fail_fast` stops at the first that fails for good. `events` gets each item that is done or
    failed; the engine reports which it begins.
    """
    waiting = deque(todo)
    total = sum(len(job.tasks) for job in waiting)
    tally = Tally()

    def next_job() -> Job | None:
        return waiting.popleft() if waiting else None

    for job, outcome in engine(next_job):
        if outcome.error and job.tries <= retry:
            waiting.append(replace(job, tries=job.tries + 1))
            continue
        outcome = ledger.add(job, outcome)
        tally.add(job, outcome)
        if outcome.error:
            events.failed(outcome.error)
        for item in outcome.items:
            if isinstance(item, Result):
                events.finished(item)
        events.progress("batch", tally.done + tally.failed, total, "items")
        if outcome.error and fail_fast:
            break
    return tally
