"""Signals at random moments, one to five in quick succession, to every command. Does each end?"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
from helpers.media_files import write_video

from stress import QUICK, environment

LIMIT = 20.0  # seconds to end in; a busy machine is slower than the ten that are promised
LONGEST = 15.0  # seconds into a command that signals come
OFTEN = (1, 2, 2, 3, 5)
APART = (0, 0.001, 0.01, 0.05, 0.2)
SIGNALS = (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

COMMANDS = {
    "caption": ["caption", "v0.mp4", "v1.mp4", "v2.mp4", *QUICK, "-o", "{out}.jsonl"],
    "ask": ["ask", "v0.mp4", "who?", "what?", *QUICK],
    "batch": ["batch", ".", "-o", "{out}.jsonl", *QUICK],
    "batch-two": ["batch", ".", "-o", "{out}.jsonl", *QUICK, "--workers", "2"],
    "frames": ["frames", "v0.mp4", "--decoder", "ffmpeg", "-o", "{out}.png"],
    "remember": ["remember", "v0.mp4", "-o", "{out}.memory", "--model", "tiny", "--frames", "4"],
    "synth": ["synth", "{out}", "--videos", "3", "--minutes", "0.5"],
    "train": [
        *("train", "tasks.jsonl", "-o", "{out}", "--model", "tiny", "--frames", "4"),
        *("--steps", "30", "--batch-size", "2", "--save-every", "5"),
    ],
    "eval": ["eval", "tasks.jsonl", "--model", "tiny", "--predictions", "{out}.jsonl"],
    "bench": ["bench", "step", "--memory", "10", "--repeats", "2"],
    "doctor": ["doctor"],
    "models": ["models", "list"],
    "version": ["--version"],
}

# What Python itself does before the first line of ours, and a shell's habit of ignoring SIGINT for
# what it starts in the background, are not ours to mend.
START = """
import signal
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
print("started", flush=True)
from malmm_cli.__main__ import main
main()
"""


def prepare(place: Path) -> None:
    """What the commands read."""
    names = [str(write_video(place / f"v{number}.mp4", 6).name) for number in range(12)]
    tasks = [
        {"id": f"{name}-{number}", "video": name, "question": "who?", "answer": "a red star"}
        for name in names[:3]
        for number in range(2)
    ]
    (place / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))


def lives(number: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def lasting(name: str, place: Path) -> float:
    """Seconds that a command takes, or as many as are worth waiting for."""
    begun = time.monotonic()
    arguments = [part.format(out="first") for part in COMMANDS[name]]
    command = [sys.executable, "-m", "malmm_cli", *arguments]
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(command, cwd=place, env=environment(), capture_output=True, timeout=LONGEST)
    return time.monotonic() - begun


def strike(name: str, place: Path, out: str, longest: float, chance: random.Random) -> str | None:
    """Run a command, send it signals; what it ended with, or why that is wrong."""
    arguments = [part.format(out=out) for part in COMMANDS[name]]
    moment = chance.uniform(0, longest)
    number = chance.choice(SIGNALS)
    with open(place / "said", "wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", START, *arguments],
            cwd=place,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        with suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        family = {process.pid}
        for _ in range(chance.choice(OFTEN)):
            if process.poll() is None:
                with suppress(psutil.NoSuchProcess):
                    family |= {p.pid for p in psutil.Process(process.pid).children(recursive=True)}
                process.send_signal(number)
            time.sleep(chance.choice(APART))
    told = ""
    try:
        process.stdout.close()
        code = process.wait(LIMIT)
        if code not in (0, 128 + number, -number):
            told = f"exit code {code}"
    except subprocess.TimeoutExpired:
        told = "does not end"
    time.sleep(0.2)
    if left := list(filter(lives, family)):
        told = told or f"left over: {left}"
    lines = (place / "said").read_text("utf-8", "replace")
    if "Traceback" in lines or "Exception ignored" in lines:
        told = told or "a traceback"
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return f"{name}, {number.name} after {moment:.3f} s: {told}\n{lines}" if told else None


def run(rounds: int, seed: int = 0, only: str | None = None) -> Counter[str]:
    """Strike `rounds` times; how often each command."""
    chance, struck = random.Random(seed), Counter[str]()
    names = [only] if only else list(COMMANDS)
    faults = []
    with tempfile.TemporaryDirectory() as place:
        prepare(Path(place))
        lasts: dict[str, float] = {}
        for number in range(rounds):
            name = names[number % len(names)]
            if name not in lasts:
                lasts[name] = lasting(name, Path(place))
            fault = strike(name, Path(place), f"out{number}", 1.1 * lasts[name], chance)
            if fault:
                print(fault, flush=True)
                faults.append(fault)
            struck[name] += 1
    assert not faults, f"{len(faults)} of {rounds} rounds"
    print(f"{rounds} rounds, each ended: {dict(struck)}")
    return struck


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=COMMANDS)
    given = parser.parse_args()
    run(given.rounds, given.seed, given.only)
