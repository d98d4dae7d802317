"""What the tests of training share: data, a way to run the command, and made-up features."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from helpers.commands import SAMPLE, Done
from malmm_cli.checkpoints.state import read_state
from malmm_cli.models.base import Features
from malmm_cli.train import Batch, Recipe, Sample, Samples

# Options of a run that takes a second or two.
QUICK = ("--frames", "4", "--memory", "2", "--batch-size", "2", "--no-progress")

# A process that stops itself at a point that no clock could hit.
START = """
import os, resource, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from malmm_cli.train import learner, run
step = learner.Learner.step
def stopping(self, number, batches):
    if number == 5:
        {action}
    return step(self, number, batches)
learner.Learner.step = stopping
from malmm_cli.__main__ import main
main()
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
INTERRUPT = "[os.kill(os.getpid(), signal.{}) for _ in range({})]"
FILL = "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"

QUESTIONS = ["what shape moves?", "which colour?", "what moves left?"]
ANSWERS = ["a circle", "red", "a blue square"]


def tasks(**changes) -> list[dict]:
    """Three questions about the sample video."""
    return [
        {"id": f"q{i}", "video": str(SAMPLE), "question": question, "answer": answer} | changes
        for i, (question, answer) in enumerate(zip(QUESTIONS, ANSWERS, strict=True))
    ]


def write_tasks(path: Path, content: list[dict] | None = None) -> Path:
    lines = tasks() if content is None else content
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def run_command(capsys, *arguments) -> Done:
    """Run the command line here, with a model of its own, since training changes it."""
    from malmm_cli import cli

    capsys.readouterr()
    code = cli.run([str(argument) for argument in arguments])
    return Done(code, *capsys.readouterr())


def steps_logged(folder: Path) -> list[dict]:
    lines = (folder / "training" / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    """Everything in the newest checkpoint."""
    (checkpoint,) = (folder / "training").glob("step-*")
    return {
        f"{name} {key}": value
        for name in ("trained", "optimizer")
        for key, value in load_file(checkpoint / f"{name}.safetensors").items()
    }


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def shown(rows: torch.Tensor) -> Features:
    """Features of one frame a second."""
    return Features(rows, torch.arange(len(rows)).double()[:, None].expand(-1, 2))


def assert_equal(ours, theirs):
    assert same(state_of(ours), state_of(theirs)), "the checkpoints differ"
    assert same(read_state(ours), read_state(theirs)), "the models differ"
    logs = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in steps_logged(folder)]
        for folder in (ours, theirs)
    ]
    assert logs[0] == logs[1]


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


def child(action, *arguments):
    code = START.format(action=action)
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def made_up(videos: int = 3, prompts: int = 2, frames=lambda video: 4) -> tuple[list, dict]:
    """Samples about videos that never were, and their features by clip."""
    torch.manual_seed(1)
    features = {f"v{i}": shown(torch.randn(frames(i), 65, 96)) for i in range(videos)}
    samples = [
        Sample(f"{clip} {j}", clip, QUESTIONS[j], (ANSWERS[(i + j) % 3],))
        for i, clip in enumerate(features)
        for j in range(prompts)
    ]
    return samples, features


def source(samples, features, recipe=None, **options) -> Samples:
    return Samples(samples, features.__getitem__, recipe or Recipe(batch_size=2), **options)


def ids(batches: list[Batch]) -> list[str]:
    return [name for batch in batches for name in batch.ids]
