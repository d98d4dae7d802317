"""METEOR of captions, by its authors' own Java program, which pycocoevalcap brings along."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from threading import Event, Timer
from typing import Any

from malmm_cli.errors import UsageError
from malmm_cli.media.guard_child import kill_below
from malmm_cli.metrics import words

__all__ = ["meteor"]

START, EACH = 90.0, 0.02  # seconds that Java may take on a busy machine, and for each text
GONE = 5.0  # seconds until the pipes of a process that was killed are at their end
SHOWN = 200  # characters of what Java complains of
INSTALL = "install Java 8 or newer"


def meteor(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """METEOR of texts, each with its references, 0 … 1.

    Raises UsageError where the extra `eval` or Java is not installed, and where Java fails or takes
    too long. Whatever happens, no Java is left behind.
    """
    if shutil.which("java") is None:
        raise UsageError("java was not found", hint=INSTALL)
    told = {number: [" ".join(words(text))] for number, text in enumerate(texts)}
    due = {n: [" ".join(words(text)) for text in given] for n, given in enumerate(references)}
    limit = START + EACH * sum(1 + len(given) for given in references)
    try:
        scorer = _scorer()
    except ImportError as error:
        raise UsageError(str(error), hint="pip install 'malmm[eval]'") from error
    except OSError as error:
        raise UsageError(f"java cannot be run: {error.strerror or error}", hint=INSTALL) from error
    process, late, score = scorer.meteor_p, Event(), math.nan

    def stop() -> None:
        late.set()
        _kill(process)

    watchdog = Timer(limit, stop)
    watchdog.daemon = True
    try:
        watchdog.start()
        with suppress(OSError, ValueError):  # Java is gone, or what it says is not a number
            score = float(scorer.compute_score(due, told)[0])
    finally:
        watchdog.cancel()
        _kill(process)
        said = _last_words(process)
    if late.is_set():
        raise UsageError(f"java took longer than {limit:.0f} s", hint=INSTALL)
    if not 0 <= score <= 1:
        raise UsageError(f"java failed: {said or 'it gave no score'}", hint=INSTALL)
    return score


def _scorer() -> Any:
    """The package's scorer, with Java started.

    Its own end is left out: it waits for a lock that is never released where a score was cut short.
    """
    from pycocoevalcap.meteor.meteor import Meteor

    return type("Scorer", (Meteor,), {"__del__": lambda _: None})()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill Java; where `java` is a script that runs the real one, that too."""
    kill_below(process.pid)
    process.kill()


def _last_words(process: subprocess.Popen[bytes]) -> str:
    """What a process that was killed had to complain of, in one line; closes its pipes."""
    try:
        _, said = process.communicate(timeout=GONE)
    except subprocess.TimeoutExpired:  # something that it started and left alone still has them
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
        return ""
    line = " ".join(said.decode(errors="replace").split())
    return "".join(letter for letter in line if letter.isprintable())[:SHOWN]
