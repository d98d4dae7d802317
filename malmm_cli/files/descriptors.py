"""How many files a process may have open at once."""

from __future__ import annotations

import errno
import os

from malmm_cli.errors import CapacityError

__all__ = ["HINT", "TOO_MANY", "allow", "ran_out"]

TOO_MANY = (errno.EMFILE, errno.ENFILE)
USUAL = 1024
HINT = "raise the limit, as with `ulimit -n 1024`"


def allow(number: int, what: str) -> None:
    """Allow that many open files; raises CapacityError if the system's hard limit is lower.

    `what` needs them.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard) or soft >= number:
        return
    if hard < number:
        raise CapacityError(
            f"{what} needs {number} open files at once; {hard} are allowed",
            hint=HINT,
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(number, USUAL), hard), hard))


def ran_out(error: BaseException) -> bool:
    """Whether an error is of too many open files; torch raises it as a RuntimeError."""
    if isinstance(error, OSError):
        return error.errno in TOO_MANY
    message = str(error)
    return isinstance(error, RuntimeError) and any(os.strerror(n) in message for n in TOO_MANY)
