"""Standard input, output and error of a process that was started without them."""

from __future__ import annotations

import os

__all__ = ["fill_streams"]


def fill_streams() -> None:
    """Open /dev/null for standard input, output or error if it is closed, as in services.

    The next file or pipe would get its number, and what is printed would go there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            lowest = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(lowest, True)  # what is started would find it closed again
