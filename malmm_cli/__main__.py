"""`python -m malmm_cli` and the command `malmm`: how the process starts and ends."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `main` has it: nothing is begun yet

import atexit
import os
import sys
from _thread import allocate_lock, start_new_thread
from contextlib import suppress
from typing import NoReturn

from malmm_cli.processes import interrupts, pulse
from malmm_cli.processes.ending import kill_own
from malmm_cli.processes.standard_streams import fill_streams


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    fill_streams()
    pulse.begin(sys.argv[1:], getattr(sys.stderr, "encoding", ""))
    interrupts.own(_end)
    try:
        from malmm_cli.cli import run
        from malmm_cli.cli.streams import open_streams

        open_streams()
        code = run()
        interrupts.over(code)
    except BaseException:
        number = interrupts.came()
        code = 128 + number if number else 1
        if not number:  # a fault of ours
            sys.excepthook(*sys.exc_info())
    _leave(code)


def _leave(code: int) -> NoReturn:
    """Exit, waiting for no thread or process: what they were to do is done, or given up.

    Python itself would join all of them first, and one that hangs for good. What is printed is
    written, and handlers run as they would: theirs are the files and semaphores that others left.
    """
    interrupts.over(code)
    if interrupts.came():
        kill_own()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    atexit._run_exitfuncs()
    os._exit(code)


def _end(code: int) -> NoReturn:
    """Exit though cleaning up hangs, and whatever lock that holds."""
    done = allocate_lock()
    done.acquire()

    def kill() -> None:
        kill_own()
        os.write(2, b"ended without waiting any longer\n")
        done.release()

    start_new_thread(kill, ())
    done.acquire(timeout=1.5)
    os._exit(code)


if __name__ == "__main__":
    main()
