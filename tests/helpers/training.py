"""What the tests of training share: data, a way to run the command, and made-up features."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from helpers.commands import SAMPLE, Done
from malmm_cli.models.base import Features
from malmm_cli.train import Batch, Recipe, Sample, Samples

# Options of a run that takes a second or two.
QUICK = ("--frames", "4", "--memory", "2", "--batch-size", "2", "--no-progress")

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
