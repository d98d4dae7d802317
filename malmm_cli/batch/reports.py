"""What a batch reports before it starts: earlier results, and the lines of engines only once."""

from __future__ import annotations

from collections.abc import Sequence

from malmm_cli.batch.lines import Lines
from malmm_cli.batch.paths import OutputPaths
from malmm_cli.batch.plan import Planned, Sorted
from malmm_cli.errors import MediaError
from malmm_cli.events import Events, Forwarding

__all__ = ["Once", "report_earlier"]

REDONE = ("other settings", "another file")  # why an item that has a result is done again


class Once(Forwarding):
    """Passes each note on only once: every worker names its model."""

    def __init__(self, events: Events) -> None:
        super().__init__(events)
        self._seen: set[str] = set()

    def note(self, line: str) -> None:
        """Pass on a line that is new."""
        if line not in self._seen:
            self.to.note(line)
        self._seen.add(line)


def report_earlier(
    paths: OutputPaths, planned: Sequence[Planned], lines: Lines, found: Sorted, events: Events
) -> None:
    """Report what is in the output, and what that means for this run."""
    for item in found.gone:
        message = f"{item.task.video}: no such file; earlier result kept"
        events.failed(MediaError(message, kind="Missing"))
    for why in REDONE:
        number = sum(reason == why for _, reason in found.todo)
        if number:
            events.note(f"results of {why} in {paths.results}, redone: {number}")
    if others := lines.kept.keys() - {item.task.id for item in planned}:
        events.note(f"results of other items in {paths.results}, kept: {len(others)}")
