"""A process that moves a terminal's spinner while this one cannot.

Importing native libraries holds the interpreter's lock, from a cold disk for many seconds, in which
no thread draws. The process is forked before anything else is imported; it sleeps unless it is to
draw, and ends with this one. Systems without fork have none.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

__all__ = ["begin", "rest", "wake"]

PATIENCE = 0.35  # seconds without a sign of life until one comes from here
TURN = 0.15  # seconds from one picture of the spinner to the next
_PICTURES = {True: "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", False: "|/-\\"}  # whether the terminal knows the first
_HIDING = {"-q", "--quiet", "--no-progress"}
_WAKE, _REST = b"w", b"r"


@dataclass
class _State:
    line: socket.socket | None = None  # to the process
    awake: bool = False


_state = _State()


def begin(arguments: list[str], encoding: str) -> None:
    """Start the process, if stderr is a terminal; it shows "starting" until `rest` is called."""
    hidden = _HIDING & {*arguments} or "_MALMM_COMPLETE" in os.environ
    if hidden or not hasattr(os, "fork") or not os.isatty(2):
        return
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        _draw(theirs, "utf" in encoding.lower())
    theirs.close()
    ours.settimeout(1.0)
    _state.line, _state.awake = ours, True


def wake() -> None:
    """The line of a spinner is drawn, its cursor still there: its first character may be moved."""
    if _state.line and not _state.awake:
        _state.awake = True
        _tell(_WAKE)


def rest() -> None:
    """Something else will be written: return when nothing is drawn any more."""
    if _state.line and _state.awake:
        _state.awake = False
        _tell(_REST, answered=True)


def _tell(word: bytes, *, answered: bool = False) -> None:
    """Say a word to the process; one that was killed or stopped is given up."""
    assert _state.line
    try:
        _state.line.send(word)
        if answered:
            _state.line.recv(1)
    except OSError:
        _state.line = None


def _draw(line: socket.socket, unicode: bool) -> NoReturn:
    """What the process does: `starting` has a line of its own, which is erased in the end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.close(0)
    os.close(1)
    text, awake, turns = " starting", True, 0
    with suppress(OSError):  # the terminal is gone
        while True:
            patience = None if not awake else TURN if turns else PATIENCE
            if not select.select([line], [], [], patience)[0]:
                picture = _PICTURES[unicode][turns % len(_PICTURES[unicode])]
                os.write(2, f"\r{picture}{text}".encode())
                turns += 1
                continue
            words = line.recv(64)
            if text and turns:
                os.write(2, b"\r\x1b[2K")
            if not words:
                break
            text, awake, turns = "", words.endswith(_WAKE), 0
            if _REST in words:
                line.send(_REST)
    os._exit(0)
