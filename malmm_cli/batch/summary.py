"""What a batch did, and what one would do."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from malmm_cli.batch.paths import OutputPaths
from malmm_cli.batch.plan import PERMANENT
from malmm_cli.batch.state import Pace
from malmm_cli.errors import OUTPUT_EXISTS, MalmmError

__all__ = ["DryRun", "Summary"]


@dataclass(frozen=True)
class Summary:
    """What became of a batch, in items.

    Of `todo` items, `done` and `failed` are over; `done_before` had results already, `limited` were
    left out by the limit, `broken` were skipped because their files failed before. `gone` are
    videos that do not exist any more, whose results are kept. The run took `seconds`, its workers
    together `worker_seconds`. `errors` are by video; `kinds` counts failed items by the kind of
    their error.
    """

    paths: OutputPaths
    todo: int
    done: int
    failed: int
    done_before: int
    limited: int
    broken: int
    gone: tuple[str, ...]
    seconds: float
    worker_seconds: float
    errors: dict[str, MalmmError]
    kinds: Counter[str]

    @property
    def failed_for_good(self) -> int:
        """How many items failed because of their file, which fails again as it is."""
        return sum(number for kind, number in self.kinds.items() if kind in PERMANENT)

    @property
    def blocked(self) -> int:
        """How many items have no result because a file of somebody else stands beside the video."""
        return self.kinds[OUTPUT_EXISTS] if self.paths.beside else 0

    @property
    def complete(self) -> bool:
        """Whether nothing failed in this run and no video is missing."""
        return not (self.failed or self.gone)


@dataclass(frozen=True)
class DryRun:
    """What a batch would do.

    `todo` holds the id of each item, why it is to be done, and whether its video exists; `gone` the
    ids of results that are kept because their videos do not exist any more; `broken` items would be
    skipped because their files failed before. `memory` is what the weights take in bytes by dtype,
    None where that is unknown; `pace` is that of the latest run.
    """

    todo: list[tuple[str, str, bool]]
    gone: list[str]
    items: int
    done_before: int
    limited: int
    broken: int
    workers: int
    memory: dict[str, int | None]
    pace: Pace | None

    @property
    def seconds(self) -> float | None:
        """How long it would take, where an earlier run tells."""
        if self.pace is None:
            return None
        return self.pace.seconds * len(self.todo) / self.workers
