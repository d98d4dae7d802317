"""How long to keep trying while no data arrives."""

from __future__ import annotations

import time
from collections.abc import Callable

from malmm_cli.errors import MalmmError
from malmm_cli.events import Events
from malmm_cli.hub.errors import asked_to_wait, is_old_address, may_pass

__all__ = ["Patience"]

# Seconds before each retry while nothing arrives.
WAITS = (1, 3, 6)

# Maximum total seconds to wait on the Hub's request while nothing arrives.
LONGEST = 600


class Patience:
    """Waits between retries; the count starts over whenever data has arrived.

    A wait that the Hub asks for is kept. `started` says that it was reached before: otherwise an
    unreachable Hub is an error at once. `explain` turns an exception into an error for users.
    """

    def __init__(
        self,
        explain: Callable[[Exception], MalmmError],
        events: Events,
        *,
        started: bool,
    ) -> None:
        self._explain = explain
        self._events = events
        self._started = started
        self._begin()

    def _begin(self) -> None:
        self._tries = 0
        self._asked = 0.0
        self._renewed = False

    @property
    def is_last(self) -> bool:
        """Whether the next attempt is the last one."""
        return self._tries == len(WAITS)

    def after(self, error: Exception, *, arrived: bool = False) -> None:
        """Report and wait before the next attempt; raise the error if a retry cannot help."""
        if arrived:
            self._begin()
        wait = self._wait(error)
        if wait is None:
            raise error
        self._events.note(f"{self._explain(error).message}; trying again in {wait} s")
        time.sleep(wait)

    def _wait(self, error: Exception) -> float | None:
        if is_old_address(error) and not self._renewed:
            self._renewed = True  # the next try asks the Hub for a new address
            return WAITS[0]
        if not may_pass(error, started=self._started):
            return None
        own = WAITS[self._tries] if self._tries < len(WAITS) else None
        asked = asked_to_wait(error)
        if not asked:
            self._tries += 1
            return own
        wait = max(asked, own or WAITS[-1])
        self._asked += wait
        return wait if self._asked <= LONGEST else None
