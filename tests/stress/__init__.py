"""Long runs, `make stress`: each a program that says what it did, and fails if it went wrong.

    python -m stress.kill      200 random kill -9 during a batch, then a last run
    python -m stress.mutate    1,000 mutated media files in one batch
    python -m stress.containers  the same packets in every container, with wrong times
    python -m stress.names     1,000 videos and outputs of random names
    python -m stress.kept      1,000 mutated memory files, caches and task files each
    python -m stress.models    1,000 mutated model folders
    python -m stress.many      10,000 small items: what the bookkeeping costs
    python -m stress.soak      1,000 videos in one process: does memory grow?
    python -m stress.signals   300 times one to five signals to any command, at any moment
    python -m stress.cluster   two Ray nodes, one killed
    python -m stress.calls     one question: functions entered, depth of the stack (no long run)

Run in tests/, or with it in PYTHONPATH. The suite runs their short forms.
"""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
QUICK = [
    *("--model", "tiny", "--frames", "2", "--memory", "2", "--beams", "1"),
    *("--max-new-tokens", "2", "--no-progress"),
]


def environment() -> dict[str, str]:
    """That of a child which finds what we find."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), *sys.path])
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def malmm(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """The command line, in a session of its own."""
    command = [sys.executable, "-m", "malmm_cli", *map(str, arguments)]
    return subprocess.Popen(
        command,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )  # type: ignore[call-overload]
