"""Our child processes: their environment and their start."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any

from malmm_cli.processes.ending import kill_below
from malmm_cli.processes.interrupts import held
from malmm_cli.processes.standard_streams import fill_streams

__all__ = ["UNGUARDED", "begin_apart", "exit_of", "leave_import", "start_apart", "start_script"]

UNGUARDED = 75  # the exit code of a child that `leave_import` ended
ENDING = 5.0  # seconds until the exit code of a process that broke off is known

_UNHEARD = {getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)}


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
        with _unheard(), _unnamed_script(), _silence() if silent else nullcontext():
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
def _unnamed_script() -> Iterator[None]:
    """A script that was read from stdin is not looked for: its children would, as "<stdin>"."""
    script = sys.modules["__main__"]
    name = getattr(script, "__file__", None)
    if name != "<stdin>":
        yield
        return
    del script.__file__
    try:
        yield
    finally:
        script.__file__ = name


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


def leave_import() -> None:
    """End a child that only imports its parent's script, which is about to do the same once more.

    That is how Python starts a child of a script whose calls do not stand below
    `if __name__ == "__main__":`. Whoever waits for the child finds UNGUARDED as its exit code.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as Python itself asks
        raise SystemExit(UNGUARDED)


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
