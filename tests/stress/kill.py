"""Kill a batch again and again, at random moments; then let it end. Every item exactly once?"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from helpers.media_files import write_video

from stress import QUICK, malmm


def whole(path: Path) -> list[dict[str, object]]:
    """The lines that are complete."""
    raw = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in raw[: raw.rfind(b"\n") + 1].splitlines()]


def check(results: Path, names: list[str]) -> None:
    """Every item exactly once, in the lines and in the state, and with a file of its own."""
    found = whole(results)
    assert sorted(str(line["id"]).rsplit("/")[-1] for line in found) == sorted(names)
    assert not [line for line in found if "error" in line]
    base = sqlite3.connect(results.with_suffix(".sqlite"))
    states = base.execute("SELECT status, count(*) FROM item GROUP BY status").fetchall()
    base.close()
    assert states == [("done", len(names))], states
    if results.name == "results.jsonl":
        texts = sorted(path.stem for path in results.parent.glob("*.txt"))
        assert texts == sorted(Path(name).stem for name in names)


def run(kills: int, videos: int, seed: int) -> None:
    """Kill `kills` times; an output that is complete before gives way to a new one."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "videos")
        folder.mkdir()
        names = [f"v{number}.mp4" for number in range(videos)]
        for name in names:
            write_video(folder / name, 6)
        done = outputs = 0
        while done < kills:
            given = f"out{outputs}.jsonl" if outputs % 2 == 0 else f"out{outputs}/"
            results = Path(place, given, "" if outputs % 2 == 0 else "results.jsonl")
            outputs += 1
            while done < kills:
                batch = malmm("batch", "videos", "-o", given, *QUICK, cwd=place)
                if killed(batch, results, chance):
                    done += 1
                    found = [line["id"] for line in whole(results)]
                    assert len(found) == len(set(found)), "an item twice"
                elif batch.returncode == 0:
                    break
                else:
                    raise AssertionError(batch.communicate()[1])
            batch = malmm("batch", "videos", "-o", given, *QUICK, cwd=place)
            _, said = batch.communicate(timeout=600)
            assert batch.returncode == 0, said
            check(results, names)
        print(f"{done} kills in {outputs} outputs of {videos} videos: every item exactly once")


def killed(batch: subprocess.Popen[str], results: Path, chance: random.Random) -> bool:
    """Kill at some moment of the start, or once lines are coming; whether that was in time."""
    before = len(whole(results))
    early = time.monotonic() + chance.uniform(0, 4) if chance.random() < 0.3 else None
    while batch.poll() is None:
        if early is not None and time.monotonic() > early:
            break
        if early is None and len(whole(results)) > before:
            time.sleep(chance.uniform(0, 0.4))
            break
        time.sleep(0.005)
    kill = chance.choice([os.kill, os.killpg])  # the one process, or all that belong to it
    with suppress(ProcessLookupError):
        kill(batch.pid, signal.SIGKILL)
    return batch.wait() < 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    run(given.kills, given.videos, given.seed)
