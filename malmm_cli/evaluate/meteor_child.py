"""The process that runs METEOR's Java program and ends with its parent.

It imports nothing of malmm, so that it works wherever its parent does. One JSON line on stdin has
the words of each caption and of its references; one on stdout has the score, or what went wrong.
"""

import json
import os
import sys
from contextlib import suppress
from subprocess import TimeoutExpired
from threading import Thread
from typing import Any

import psutil
from pycocoevalcap.meteor.meteor import Meteor

GONE = 5.0  # seconds until the pipes of a process that was killed are at their end


def main() -> None:
    """Answer the request, and wait to be killed."""
    candidates, targets = json.loads(sys.stdin.buffer.readline())
    watch = Thread(target=end_with_parent)
    watch.start()
    answer = json.dumps(scored(dict(enumerate(candidates)), dict(enumerate(targets))))
    os.write(1, f"{answer}\n".encode())
    watch.join()


def end_with_parent() -> None:
    """Wait for the end of stdin, which the parent keeps open; then kill Java and this process."""
    sys.stdin.buffer.read()
    kill_below()
    psutil.Process().kill()


def kill_below() -> None:
    """Kill Java; where `java` is a script that runs the real one, that too."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def scored(candidates: dict[int, list[str]], targets: dict[int, list[str]]) -> dict[str, Any]:
    """The score, or what is wrong with Java."""
    try:
        scorer = Meteor()
    except OSError as error:
        return {"wrong": f"cannot be run: {error.strerror or error}"}
    try:
        return {"score": float(scorer.compute_score(targets, candidates)[0])}
    except (OSError, ValueError):  # Java is gone, or what it says is not a number
        scorer.lock.release()  # its own end waits for it
        kill_below()
        return {"wrong": f"failed: {last_words(scorer.meteor_p) or 'no score returned'}"}


def last_words(process: Any) -> str:
    """The error messages of Java."""
    try:
        said: bytes = process.communicate(timeout=GONE)[1]
    except TimeoutExpired:  # something that it started and left alone still has its pipes
        return ""
    return said.decode(errors="replace")


if __name__ == "__main__":
    main()
