"""A worker: one model, a guarded decoder, and what becomes of a job that wants too much."""

import dataclasses
import json
import os
import subprocess
import sys
import time

import pytest
import torch
from helpers.commands import FAST, SAMPLE

from malmm_cli.batch.plan import jobs, plan
from malmm_cli.batch.worker import Setup, start
from malmm_cli.media.sandbox import Limits, Sandbox
from malmm_cli.models import registry
from malmm_cli.models.instructblip.defaults import ASK, CAPTION
from malmm_cli.pipeline import answer, loading, remembering
from malmm_cli.pipeline.model import Model
from malmm_cli.settings import changed
from malmm_cli.types import Task

QUICK = changed(CAPTION, frames=8, memory=2, beams=1, max_new_tokens=2)


@pytest.fixture
def job():
    (found,) = jobs(plan([Task("a", str(SAMPLE))], QUICK, ASK, {}))
    return found


@pytest.fixture
def work(monkeypatch, load_once, one_thread, inline):
    """A worker that decodes in this process."""
    monkeypatch.setattr(registry, "load", load_once)
    return start(Setup("tiny"), 0)


@pytest.fixture
def cramped(monkeypatch, work):
    """A GPU that takes at most so many frames at a time; what was tried."""
    net, tried = work._model.net, []
    encode = type(net).encode_frames

    def make(most):
        def checked(self, pixels):
            tried.append(len(pixels))
            if len(pixels) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return encode(self, pixels)

        monkeypatch.setattr(type(net), "encode_frames", checked)
        return tried

    return make


def test_too_little_memory_means_smaller_chunks_once(work, job, cramped):
    tried = cramped(2)
    outcome = work(job)
    assert outcome.error is None
    assert tried == [8, 2, 2, 2, 2]
    assert outcome.items[0].frames == 8


def test_too_little_memory_for_those_too_is_recorded(work, job, cramped):
    tried = cramped(1)
    outcome = work(job)
    assert tried == [8, 2]
    assert outcome.error.kind == "CapacityError"
    cramped(8)
    assert work(job).error is None, "and the next one is tried in full"


def test_what_an_outcome_says(work, job):
    outcome = work(job)
    assert outcome.items[0].text == answer.caption(SAMPLE, model=work._model, settings=QUICK).text
    assert outcome.seconds > 0
    assert outcome.memory > 2**20
    assert outcome.identity.startswith(f"{SAMPLE.stat().st_size}-")
    assert work.description == "tiny on cpu, float32"


def test_time_is_over_for_the_decoder_too(work, job, monkeypatch):
    sandbox = Sandbox(Limits())
    work._sandbox, work._model = sandbox, dataclasses.replace(work._model, reader=sandbox)
    work._setup = Setup("tiny", timeout=0.0)
    try:
        assert work(job).error.kind == "Timeout"
        work._setup = Setup("tiny")
        assert work(job).error is None
    finally:
        sandbox.close()


@pytest.mark.parametrize(
    ("gpus", "places"), [(2, ["cuda:0", "cuda:1", "cuda:0"]), (0, ["auto"] * 3)]
)
def test_gpus_are_taken_in_turn(monkeypatch, gpus, places):
    seen = []

    def load(name, *, device, **_):
        seen.append(device)
        return Model(None, name, None, device, "float32")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(loading, "load", load)
    for number in range(3):
        start(Setup("tiny"), number)
    start(Setup("tiny", device="cpu"), 1)
    assert seen == [*places, "cpu"]


def test_workers_share_the_processor(monkeypatch, one_thread):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(loading, "load", lambda name, **_: Model(None, name, None, "", ""))
    start(Setup("tiny", workers=4), 0)
    assert torch.get_num_threads() == 2


def test_real_processes_from_end_to_end(tmp_path, clip):
    """Two workers, a file that is cut off, and a rerun."""
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(clip.read_bytes())
    (tmp_path / "broken.mp4").write_bytes(clip.read_bytes()[:3000])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "malmm_cli", "batch", ".", *FAST[:-1], "--workers", "2"]

    def read(name):
        return (tmp_path / name).read_text().splitlines()

    def run():
        return subprocess.run(
            [*command, "-o", "out.jsonl"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    first = run()
    assert (first.returncode, first.stdout) == (1, "")
    assert "3 of 4 items done, 1 failed: out.jsonl" in first.stderr
    assert first.stderr.count("tiny on cpu, float32") == 1
    found = {line["id"]: line for line in map(json.loads, read("out.jsonl"))}
    assert sorted(found) == ["a.mp4", "b.mp4", "broken.mp4", "c.mp4"]
    (tmp_path / "broken.mp4").unlink()
    begun = time.monotonic()
    again = run()
    assert again.returncode == 0
    assert "nothing left to do, 3 done before" in again.stderr
    assert time.monotonic() - begun < 20, "no model is loaded for nothing"


def test_settings_for_videos_do_not_apply_to_a_memory_file(work, tmp_path):
    """Among videos it may be given with --frames; what is left, such as beams, applies."""
    path = tmp_path / "a.memory"
    remembering.remember(SAMPLE, work._model, frames=3).write(path)
    (made,) = jobs(plan([Task("a", str(path))], QUICK, ASK, {}))
    (result,) = work(made).items
    assert (result.frames, result.memory) == (3, CAPTION.memory.length)
