"""Our child processes: their environment, their start and their end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any

from malmm_cli.processes.interrupts import held

__all__ = [
    *("begin_apart", "exit_of", "fill_streams", "kill_below", "kill_own", "kill_tree"),
    *("start_apart", "start_script"),
]

ENDING = 5.0  # seconds until the exit code of a process that broke off is known

_UNHEARD = {getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)}


def fill_streams() -> None:
    """Open /dev/null wherever standard input, output or error is closed, as a service has it.

    The next file or pipe would get its number, and what is printed would go there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            lowest = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(lowest, True)  # what is started would find it closed again


def start_apart(
    target: Callable[..., None], *arguments: Any, daemon: bool = False, silent: bool = False
) -> tuple[BaseProcess, Connection]:
    """Start a process that no Ctrl-C reaches, and a line to it, the first argument of `target`.

    Whoever started it ends it; a `silent` one has nowhere to complain to.
    """
    fill_streams()
    context = multiprocessing.get_context("spawn")
    with held():  # or it might run without being known
        talk, other = context.Pipe()
        process = context.Process(target=target, args=(other, *arguments), daemon=daemon)
        with _unheard(), _silence() if silent else nullcontext():
            process.start()
        other.close()
    return process, talk


def start_script(path: Path, *, own_session: bool = False) -> subprocess.Popen[bytes]:
    """Start a script that imports nothing of malmm; it is spoken to by stdin and stdout.

    In a session of its own no Ctrl-C reaches it. Whoever started it ends it.
    """
    return subprocess.Popen(
        [sys.executable, "-P", str(path)],  # -P: modules beside it may have names of packages
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=own_session,
    )


@contextmanager
def _unheard() -> Iterator[None]:
    """What starts here does not hear Ctrl-C, nor that the terminal is gone."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _UNHEARD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _silence() -> Iterator[None]:
    """Python complains where its parent dies before it has fully started."""
    before = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def begin_apart() -> None:
    """What a process that was started apart does first: it lives as long as its parent does.

    Signals of the terminal are the parent's. A process at work would not notice a closed pipe,
    so it is killed when the parent exits, with all it started.
    """
    import psutil  # before there is a limit on memory

    for number in _UNHEARD:
        signal.signal(number, signal.SIG_IGN)
    fill_streams()

    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        kill_below(os.getpid())
        psutil.Process().kill()

    Thread(target=watch, daemon=True).start()


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


def exit_of(process: BaseProcess) -> str:
    """How a process ended that broke its line off, in words."""
    process.join(ENDING)
    code = process.exitcode
    if code is None or code >= 0:
        return f"the process exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    more = ", perhaps because the system ran out of memory" if name == "SIGKILL" else ""
    return f"the process was killed by {name}{more}"
