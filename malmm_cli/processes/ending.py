"""The end of child processes, with all that they started."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

__all__ = ["kill_below", "kill_own", "kill_tree"]


def kill_below(number: int) -> None:
    """Kill all that the process of this number started."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(number).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()


def kill_own() -> None:
    """Kill all that this process started, and wait a little for their end."""
    import psutil

    own = psutil.Process().children()
    kill_below(os.getpid())
    psutil.wait_procs(own, timeout=1.0)


def kill_tree(process: BaseProcess) -> None:
    """Kill a process and all that it started, and wait for its end."""
    assert process.pid is not None
    kill_below(process.pid)
    process.kill()
    process.join()
