"""How tasks are answered, and what predictions come from; known without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from malmm_cli.pipeline.model import Model
from malmm_cli.settings import Settings, changed, prompts_for
from malmm_cli.types import Task

__all__ = ["Plan", "Run", "provenance"]


@dataclass(frozen=True)
class Plan:
    """How tasks are answered: questions by one kind of settings, captions and prompts by another.

    With `choices` the likeliest of a task's choices is taken, where it has any, and nothing is
    written freely. `newest` uses only that many of the chosen frames, the last ones.
    """

    questions: Settings
    captions: Settings
    choices: bool = False
    newest: int | None = None

    def settings(self, task: Task) -> Settings:
        """Those of a task's kind, for the part of the video that the task is about."""
        settings = self.captions if task.question is None else self.questions
        span = {"start": task.start, "end": task.end}
        return changed(settings, **{k: v for k, v in span.items() if v is not None})

    def most(self, tasks: Sequence[Task]) -> Settings:
        """Those that tasks are spoken of by: of questions, where there are any."""
        asked = any(task.question is not None for task in tasks)
        return self.questions if asked else self.captions

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, as reports have it."""
        settings = {"questions": self.questions.as_dict(), "captions": self.captions.as_dict()}
        return {**settings, "choices": self.choices, "newest": self.newest}

    def prompt(self, task: Task) -> str:
        """The prompt for the model."""
        if task.question is None:
            return task.prompt or self.captions.prompt
        return prompts_for([task.question], self.questions)[0]


@dataclass(frozen=True)
class Run:
    """A plan, and the file that keeps its predictions."""

    plan: Plan
    path: Path


def provenance(model: Model, plan: Plan) -> dict[str, Any]:
    """All that predictions come from besides tasks, for JSON."""
    return {
        "model": model.name,
        "revision": model.revision,
        "weights": model.fingerprints.weights,
        "dtype": model.dtype,
        "bits": model.net.spec.bits,
        **plan.as_dict(),
    }
