"""Several processes started by torchrun or accelerate: which of them prints.

Only the first process reports an error that all of them find, such as a wrong option; the others
exit with 0, since a launcher ends all as soon as one fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer

from malmm_cli.errors import UsageError

__all__ = ["check_launch", "is_beside", "said_by_first"]

_SHARED = "train"


def check_launch(arguments: Sequence[str]) -> None:
    """Leave what needs no model to the first of several processes, and refuse what is not for them.

    Raises UsageError for a command but `train`, in the first one.
    """
    if not _launched():
        return
    if {"-h", "--help"} & {*arguments} or not arguments or arguments[0].startswith("-"):
        if is_beside():
            raise typer.Exit(0)
    elif arguments[0] != _SHARED:
        with said_by_first():
            raise UsageError(
                f"malmm {arguments[0]}: only `malmm {_SHARED}` runs in several processes, but "
                f"{os.environ['WORLD_SIZE']} were started",
                hint="run it without torchrun; to run it once per process, unset LOCAL_RANK",
            )


@contextmanager
def said_by_first() -> Iterator[None]:
    """Errors inside come in every process; those after the first leave without a word."""
    try:
        yield
    except Exception:
        if is_beside():
            raise typer.Exit(0) from None
        raise


def is_beside() -> bool:
    """Whether this process was started beside a first one, which says what all find."""
    return _launched() and os.environ.get("RANK", "0") != "0"


def _launched() -> bool:
    return "LOCAL_RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"
