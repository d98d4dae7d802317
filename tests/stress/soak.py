"""Video after video in one worker: does the memory of the process, or of its decoder, grow?"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import suppress
from pathlib import Path
from statistics import mean

import psutil
from helpers.media_files import write_video

from malmm_cli.batch.plan import jobs, plan
from malmm_cli.batch.worker import Setup, start
from malmm_cli.models.instructblip.defaults import ASK, CAPTION
from malmm_cli.settings import changed
from malmm_cli.types import Task

GROWTH = 0.05
FORMS = (("mp4", {}), ("mkv", {}), ("avi", {"codec": "mpeg4"}), ("ts", {}))


def decoder_memory(process: psutil.Process) -> int:
    """Bytes that a child holds, if it is one that decodes; others may be ending just now."""
    with suppress(psutil.Error):
        if "spawn_main" in " ".join(process.cmdline()):
            return int(process.memory_info().rss)
    return 0


def run(number: int, window: int) -> float:
    """How much more memory the last `window` videos held than the second `window`."""
    settings = changed(CAPTION, frames=4, memory=2, beams=1, max_new_tokens=2)
    work = start(Setup("tiny"), 0)
    held: dict[str, list[int]] = {"worker": [], "decoder": []}
    with tempfile.TemporaryDirectory() as place:
        videos = [
            str(write_video(Path(place, f"v{index}.{form}"), 10 + 3 * index, **how))
            for index, (form, how) in enumerate(FORMS * 2)
        ]
        tasks = [Task(str(index), videos[index % len(videos)]) for index in range(number)]
        for job in jobs(plan(tasks, settings, ASK, {})):
            outcome = work(job)
            assert outcome.error is None, outcome.error
            own = psutil.Process()
            held["worker"].append(own.memory_info().rss)
            held["decoder"].append(sum(map(decoder_memory, own.children())))
    growths = []
    for name, sizes in held.items():
        second, last = mean(sizes[window : 2 * window]), mean(sizes[-window:])
        growths.append(last / second - 1)
        print(f"{name}: {second / 2**20:.1f} MiB, at the end {last / 2**20:.1f} MiB")
    print(f"{number} videos: {100 * max(growths):+.1f} %")
    return max(growths)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--window", type=int, default=100)
    given = parser.parse_args()
    assert run(given.videos, given.window) < GROWTH
