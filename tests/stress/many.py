"""Many small items, and a worker that takes no time: what does the bookkeeping cost?"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import chdir
from pathlib import Path

from helpers.batches import Actor, ids, run_batch

from malmm_cli.batch.inputs import find_tasks
from malmm_cli.batch.job import Engine
from malmm_cli.batch.paths import OutputPaths
from malmm_cli.batch.plan import plan
from malmm_cli.models.instructblip.defaults import ASK, CAPTION

PER_ITEM, RERUN = 0.002, 2.0  # seconds


def engine() -> Engine:
    """In this process, so that nothing else is measured."""

    def run(next_job):  # type: ignore[no-untyped-def]
        actor = Actor(0.0, None)
        while job := next_job():
            yield job, actor(job)

    return run


def run(number: int) -> tuple[float, float]:
    """Seconds for an item, and of a rerun with nothing to do."""
    with tempfile.TemporaryDirectory() as place, chdir(place):
        Path("videos").mkdir()
        for index in range(number):
            Path("videos", f"v{index:06}.mp4").write_text(f"video {index}")
        results = OutputPaths(Path("out.jsonl"))
        took = []
        for expected in (number, 0):
            begun = time.monotonic()
            tasks = find_tasks(["videos"], (), (), results.base)
            tally = run_batch(results, plan(tasks, CAPTION, ASK, {}), engine=engine())
            took.append(time.monotonic() - begun)
            assert (tally.done, tally.failed) == (expected, 0)
        found = ids(results.results)
        assert len(found) == len(set(found)) == number
    each = took[0] / number
    print(f"{number} items: {1000 * each:.2f} ms each; a rerun with nothing to do {took[1]:.2f} s")
    return each, took[1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    each, rerun = run(parser.parse_args().items)
    assert each < PER_ITEM, f"more than {PER_ITEM} s"
    assert rerun < RERUN, f"more than {RERUN} s"
