"""METEOR of captions, by its authors' Java program from pycocoevalcap.

The package waits for Java without limit and can hang after a timeout, so it runs in a separate
process, which can be killed and ends with this one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Timer
from typing import Any

from malmm_cli.datasets.metrics import words
from malmm_cli.errors import UsageError
from malmm_cli.processes.children import start_script
from malmm_cli.processes.ending import kill_below

__all__ = ["meteor"]

START, EACH = 90.0, 0.02  # seconds that Java may take on a busy machine, and for each text
SHOWN = 200  # characters of what Java complains of
INSTALL = "install Java 8 or newer"


def meteor(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """METEOR of texts, each with its references, 0 … 1.

    Raises UsageError where the extra `eval` or Java is not installed, and where Java fails or takes
    too long. Whatever happens, no Java is left behind.
    """
    if find_spec("pycocoevalcap") is None:
        raise UsageError("pycocoevalcap is not installed", hint="pip install 'malmm[eval]'")
    if shutil.which("java") is None:
        raise UsageError("java not found", hint=INSTALL)
    candidates = [[" ".join(words(text))] for text in texts]
    targets = [[" ".join(words(text)) for text in given] for given in references]
    limit = START + EACH * sum(1 + len(given) for given in references)
    answer = _ask((candidates, targets), limit)
    if answer is None:
        raise UsageError(f"java timed out after {limit:.0f} s", hint=INSTALL)
    score = answer.get("score")
    if score is None or not 0 <= score <= 1:
        said = " ".join(str(answer.get("wrong", "failed: no score returned")).split())
        shown = "".join(letter for letter in said if letter.isprintable())[:SHOWN]
        raise UsageError(f"java {shown}", hint=INSTALL)
    return float(score)


def _ask(request: Any, limit: float) -> dict[str, Any] | None:
    """The child's answer; None if it takes longer than the limit, in seconds."""
    child = Path(__file__).with_name("meteor_child.py")
    process = start_script(child, own_session=True)  # Ctrl-C is for this process
    assert process.stdin is not None
    assert process.stdout is not None
    late = Event()

    def stop() -> None:
        late.set()
        _kill(process)

    watchdog = Timer(limit, stop)
    watchdog.daemon = True
    try:
        watchdog.start()
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        line = process.stdout.readline()
    finally:
        watchdog.cancel()
        _kill(process)
        process.communicate()
    if late.is_set():
        return None
    answer: dict[str, Any] = json.loads(line or b"{}")
    return answer


def _kill(process: subprocess.Popen[bytes]) -> None:
    kill_below(process.pid)
    process.kill()
