"""Workers on this machine: one bad video hurts nobody."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from helpers import batches
from helpers.batches import broken, files, ids, planned, run_batch, start
from helpers.events import Recorded

from malmm_cli.batch import pool
from malmm_cli.batch.job import Job
from malmm_cli.batch.plan import jobs
from malmm_cli.errors import MediaError, ModelError


def outcomes(names, **how):
    """The kind of each video's failure, or None, in the order in which they ended."""
    waiting = list(jobs(planned(names)))
    engine = pool.run(lambda: waiting.pop(0) if waiting else None, partial(start, 0.0, None), **how)
    return [(job.video, outcome.error and outcome.error.kind) for job, outcome in engine]


def test_a_crash_costs_one_item(paths):
    names = files("a.mp4", "kill-1.mp4", "b.mp4", "fault-1.mp4", "c.mp4")
    tally = run_batch(paths, planned(names))
    assert (tally.done, tally.failed) == (3, 2)
    assert ids(paths.results) == names
    told = {name: error.message for name, error in tally.errors.items()}
    assert told == {
        "kill-1.mp4": "kill-1.mp4: the worker crashed: the process was killed by SIGKILL, perhaps "
        "because the system ran out of memory",
        "fault-1.mp4": "fault-1.mp4: the worker crashed: the process was killed by SIGSEGV",
    }


def test_a_hang_costs_one_item_and_its_time(paths, monkeypatch):
    monkeypatch.setattr(pool, "GRACE", 0.2)
    names = files("a.mp4", "hang-1.mp4", "b.mp4")
    begun = time.monotonic()
    found = outcomes(names, timeout=0.5)
    assert found == [("a.mp4", None), ("hang-1.mp4", "Timeout"), ("b.mp4", None)]
    assert time.monotonic() - begun < 30


def test_workers_do_not_wait_for_each_other(paths, monkeypatch):
    monkeypatch.setattr(pool, "GRACE", 0.2)
    names = files("hang-1.mp4", *(f"v{number}.mp4" for number in range(5)))
    found = outcomes(names, workers=2, timeout=3)
    assert found[-1] == ("hang-1.mp4", "Timeout")
    assert sorted(found[:-1]) == [(name, None) for name in names[1:]]


def test_workers_that_cannot_start_end_the_run(paths):
    def run(first):
        waiting = list(jobs(planned(files("a.mp4"))))
        list(pool.run(lambda: waiting.pop() if waiting else None, first))

    with pytest.raises(MediaError, match="no worker today"):
        run(broken)
    with pytest.raises(ModelError, match="the model could not be loaded: the process was killed"):
        run(killed)


def killed(number):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def test_the_model_is_loaded_before_the_first_video_is_started(paths):
    events = Recorded()
    tally = run_batch(paths, planned(files("a.mp4", "b.mp4")), events=events, model="small")
    assert tally.done == 2
    assert events.order == [
        *("small: loading", "end of small: loading"),
        *("started a.mp4", "done a.mp4", "started b.mp4", "done b.mp4"),
    ]


def test_files_that_are_missing_need_no_worker(paths, monkeypatch):
    monkeypatch.setattr(pool, "start_apart", None)
    events = Recorded()
    tally = run_batch(paths, planned(["gone.mp4", "lost.mp4"]), events=events, retry=1)
    assert (tally.done, tally.failed, tally.kinds) == (0, 2, {"Missing": 2})
    assert ids(paths.results) == ["gone.mp4", "lost.mp4"]
    assert events.order == ["gone.mp4: no such file", "lost.mp4: no such file"]


def test_nothing_to_do_starts_nothing(monkeypatch):
    monkeypatch.setattr(pool, "start_apart", None)
    assert list(pool.run(lambda: None, broken)) == []


def test_a_retry_that_comes_late_is_done(paths):
    waiting: list[Job] = list(jobs(planned(files("a.mp4", "fail-1.mp4"))))
    again = []
    for job, outcome in pool.run(
        lambda: waiting.pop(0) if waiting else None, partial(start, 0.0, None)
    ):
        if outcome.error and not again:
            again.append(job)
            waiting.append(job)
    assert again
    assert not waiting


def test_what_is_left_of_workers_when_a_run_ends(paths):
    """Nothing, also where it ends early."""
    waiting = list(jobs(planned(files("a.mp4", "hang-1.mp4"))))
    engine = pool.run(
        lambda: waiting.pop(0) if waiting else None, partial(start, 0.0, None), workers=2
    )
    next(engine)
    engine.close()
    names = [" ".join(p.cmdline()) for p in psutil.Process().children(recursive=True)]
    assert not [name for name in names if "spawn_main" in name]


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX's")
def test_workers_end_at_once_with_their_parent(paths):
    """Also one that is at work, and so does not look at what it is told."""
    files("hang-1.mp4")
    command = [sys.executable, batches.__file__, "out.jsonl", "hang-1.mp4"]
    log = ["--log", "log"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.Popen([*command, *log], env=environment)
    while not Path("log").exists():
        time.sleep(0.05)
    below = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.wait()
    _, alive = psutil.wait_procs(below, timeout=10)
    assert not alive
