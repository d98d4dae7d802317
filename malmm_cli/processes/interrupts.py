"""Ctrl-C, SIGTERM and SIGHUP → one KeyboardInterrupt in the main thread.

A second one would interrupt the cleanup after the first: a worker would never be ended, a
thread never told to stop. So only the first is raised. A thread watches them too,
and sees them while the main thread is in native code: it has the process ended when cleaning up
takes longer than DEADLINE, or when a signal comes later than PRESS after the first.
"""

from __future__ import annotations

import math
import select
import signal
import socket
import sys
import threading
import time
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

__all__ = ["Patience", "came", "held", "over", "own"]

PRESS = 2.0  # seconds: signals that come together are one, as a person or a launcher sends them
DEADLINE = 8.0  # seconds to clean up in

SIGNALS = tuple(getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n))

_OVER, _AGAIN = 0, 255  # what the thread gets, besides signals

Handler = Callable[[int, FrameType | None], Any]


@dataclass
class _State:
    number: int | None = None  # of the signal that was raised
    again: bool = False  # something swallowed it
    code: int | None = None  # to exit with, once nothing is left to be interrupted
    patience: Patience | None = None
    alarm: socket.socket | None = None


_state = _State()


def own(end: Callable[[int], NoReturn]) -> None:
    """Handle signals from here on, those apart that were ignored when the process started.

    `end` gets the exit code; it is called in a thread of its own, when waiting is no use.
    """
    heard, _state.alarm = socket.socketpair()
    _state.alarm.setblocking(False)
    threading.Thread(target=_watch, args=(heard, end), name="signals", daemon=True).start()
    signal.set_wakeup_fd(_state.alarm.fileno(), warn_on_full_buffer=False)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)
    sys.unraisablehook = _unraisable
    threading.excepthook = _in_thread


def came() -> int | None:
    """The number of the signal that was raised as KeyboardInterrupt, if one was."""
    return _state.number


def over(code: int) -> None:
    """Nothing is left to be interrupted: a signal now ends the process at once.

    Whatever comes before the exit with `code` has DEADLINE seconds.
    """
    _state.code = code
    _tell(_OVER)


@contextmanager
def held() -> Iterator[None]:
    """Let what is inside come to its end: a signal interrupts behind it."""
    late: list[int] = []
    before: dict[int, Handler] = {}
    try:
        with _instead(lambda number, _: late.append(number)) as before:
            yield
    finally:
        if late:
            before[late[0]](late[0], None)


class Patience:
    """Whether a signal came, which then waits for a good moment: there `stop` does what it would.

    The wait has no deadline; a signal that comes later than PRESS after the first ends it.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._since = 0.0
        self._before: dict[int, Handler] = {}

    def __bool__(self) -> bool:
        return self.number is not None

    def stop(self) -> NoReturn:
        """Raise KeyboardInterrupt."""
        if self.number is not None:
            self._before[self.number](self.number, None)
        raise KeyboardInterrupt

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if self.number is None:
            self.number, self._since = number, time.monotonic()
        elif time.monotonic() - self._since > PRESS:
            self._before[number](number, frame)

    @contextmanager
    def listening(self) -> Iterator[Patience]:
        """Take signals inside."""
        with _instead(self.note) as self._before:
            _state.patience = self if self._before else None
            try:
                yield self
            finally:
                _state.patience = None


@contextmanager
def _instead(note: Handler) -> Iterator[dict[int, Handler]]:
    """Have `note` called in place of handlers, which are given; only the main thread has them."""
    before: dict[int, Handler] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        before = {n: handler for n, handler in handlers.items() if callable(handler)}
    try:
        for number in before:
            signal.signal(number, note)
        yield before
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _handle(number: int, _frame: FrameType | None) -> None:
    if _state.number is not None and not _state.again:
        return
    if _state.code is not None:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    _state.number, _state.again = _state.number or number, False
    raise KeyboardInterrupt


def _watch(heard: socket.socket, end: Callable[[int], NoReturn]) -> None:
    """See signals as bytes that arrive whatever the main thread does, and what `_tell` tells."""
    deadline, since, first = math.inf, -math.inf, 0
    forgiven: Patience | None = None
    while True:
        left = None if deadline == math.inf else max(deadline - time.monotonic(), 0.0)
        if not select.select([heard], [], [], left)[0]:
            end(128 + first if first else _state.code or 0)
        for number in heard.recv(512):
            now = time.monotonic()
            if number == _OVER:
                deadline = min(deadline, now + DEADLINE)
            elif number == _AGAIN:
                time.sleep(0.05)  # until the main thread has left what swallows exceptions
                _state.again = True
                interrupt_main(signal.Signals(_state.number or signal.SIGINT))
            elif number not in SIGNALS or now - since < PRESS or (_state.code is not None):
                continue
            elif _state.patience is not None and _state.patience is not forgiven:
                since, forgiven = now, _state.patience
            elif first:
                end(128 + first)
            else:
                since, deadline, first = now, now + DEADLINE, number


def _tell(word: int) -> None:
    if _state.alarm:
        with suppress(OSError):  # the thread has more to do already than it can
            _state.alarm.send(bytes([word]))


def _unraisable(fault: Any) -> None:
    """Where an exception cannot be raised, in `__del__` say, Ctrl-C has to be raised again."""
    if issubclass(fault.exc_type, KeyboardInterrupt) and _state.number is not None:
        _tell(_AGAIN)
    elif _state.number is None:
        sys.__unraisablehook__(fault)


def _in_thread(fault: Any) -> None:
    """Errors of a thread while the process ends are not reported."""
    if _state.number is None:
        threading.__excepthook__(fault)
