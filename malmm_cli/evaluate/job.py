"""What an evaluation is asked to do: read and checked before the model is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from malmm_cli import hub
from malmm_cli.datasets.papers import SETS, Set, read_set
from malmm_cli.datasets.tasks import read_tasks
from malmm_cli.errors import UsageError
from malmm_cli.evaluate.blind import blind_scores
from malmm_cli.evaluate.plan import Plan
from malmm_cli.evaluate.predictions import Prediction, check_source, digest
from malmm_cli.evaluate.scores import Rule
from malmm_cli.models import registry
from malmm_cli.pipeline import precheck
from malmm_cli.pipeline.defaults import defaults_of
from malmm_cli.settings import Changes, Defaults, by_kind, changed, check_paths
from malmm_cli.types import Task

__all__ = ["Job", "Options", "beside", "read_job"]


class Options(Changes, total=False):
    """Keyword arguments of `run` and `ablate`: those of `malmm eval`, and changes to the settings.

    `format` names a set of the paper, "jsonl" a file of tasks; `videos`, `split` and `task` are for
    the former. With `choices` the likeliest of a task's choices is taken. `limit` takes the first
    tasks only. `guess_from` is a file of tasks to learn the blind guess from, in place of those
    about the data's other videos.
    """

    format: str
    videos: str | Path | None
    split: str | None
    task: str | None
    choices: bool
    limit: int | None
    guess_from: str | Path | None
    overwrite: bool


@dataclass(frozen=True)
class Job:
    """Tasks, how to answer them, and the set of the paper that they are of.

    `changes` to the settings stand above the set's own, and those above a model's defaults. The
    blind guess is learnt from the tasks in `learnt`.
    """

    data: Path
    tasks: list[Task]
    learnt: list[Task]
    changes: Mapping[str, Any]
    choices: bool
    limit: int | None
    overwrite: bool
    known: Set | None
    part: str | None

    @property
    def how(self) -> dict[str, Any]:
        """Arguments of `predict`."""
        return {"limit": self.limit, "overwrite": self.overwrite}

    def plan(self, defaults: Defaults) -> Plan:
        """How tasks are answered by a model with these defaults."""
        for_questions, for_captions = by_kind(self.changes)
        questions, captions = defaults.tasks["ask"], defaults.tasks["caption"]
        if self.known:
            questions = changed(questions, **self.known.questions)
            captions = changed(captions, **self.known.captions)
        questions = defaults.checked(changed(questions, **for_questions))
        captions = defaults.checked(changed(captions, **for_captions))
        return Plan(questions, captions, self.choices)

    def check_model(self, name: str, path: Path | None = None) -> None:
        """Check the files of a model, and predictions in the file `path`, before it is loaded.

        Raises UsageError for an unknown name and for predictions that were made with another model
        or other settings, ModelError and CapacityError as `precheck.check_model` does.
        """
        plan = self.plan(defaults_of(name))
        kinds = {task.question is None: plan.settings(task) for task in self.tasks}
        for settings in kinds.values():
            precheck.check_model(name, settings)
        if path is None or self.overwrite or hub.model_type(name) is None:
            return  # a model that was never downloaded may have other defaults
        check_source(path, {"tasks": digest(self.tasks), "model": name, **plan.as_dict()})

    def rule(self, defaults: Defaults) -> Rule:
        """How predictions are scored, of a model with these defaults."""
        length = self.plan(defaults).most(self.tasks).memory.length
        first_word = self.known is not None and self.known.first_word
        return Rule(length or defaults.tasks["ask"].memory.length, first_word)

    def blind(self, said: Sequence[Prediction], rule: Rule) -> dict[str, Any] | None:
        """The scores of the blind guess at the questions that predictions answer."""
        tasks = self.tasks[: self.limit]
        return blind_scores(tasks, said, rule, learnt=self.learnt, choices=self.choices)

    @property
    def paper(self) -> dict[str, Any] | None:
        """The scores that MA-LMM's authors report for the same, and where."""
        if self.known is None:
            return None
        paper = self.known.paper
        results = {self.part: paper[self.part]} if self.part else dict(paper)
        return {"source": f"MA-LMM, CVPR 2024, table {self.known.table}", "results": results}


def read_job(data: Path, options: Options) -> Job:
    """Read the data, and check the options, as far as that is possible without the model."""
    given: dict[str, Any] = {**options}
    form, choices = given.pop("format", "jsonl"), given.pop("choices", False)
    limit, overwrite = given.pop("limit", None), given.pop("overwrite", False)
    guess_from = given.pop("guess_from", None)
    check_paths(optional=True, guess_from=guess_from)
    source = {name: given.pop(name, None) for name in ("videos", "split", "task")}
    if form == "jsonl":
        for option, value in source.items():
            if value is not None:
                message = f"--{option} is only for the data sets of --format-in"
                raise UsageError(message, hint="choose a data set with --format-in")
        tasks, known = read_tasks(data), None
    else:
        videos = Path(source["videos"]) if source["videos"] else None
        tasks = read_set(data, form, videos=videos, split=source["split"], part=source["task"])
        known = SETS[form]
    learnt = read_tasks(guess_from, present=False) if guess_from else tasks
    if choices and not any(task.choices for task in tasks):
        raise UsageError(f"{data}: no task has 'choices'", hint="leave --choices out")
    job = Job(data, tasks, learnt, given, choices, limit, overwrite, known, source["task"])
    plan = job.plan(registry.defaults())  # wrong values are wrong for every family
    for task in tasks:
        plan.settings(task)
        plan.prompt(task)
    return job


def beside(data: Path, suffix: str) -> Path:
    """The default path of a file made from data: data/test.jsonl → data/test.predictions.jsonl."""
    if data.stem in ("", ".."):  # "." has no name of its own
        data = Path(os.path.abspath(data))
    return data.with_name(f"{data.stem}.{suffix}")
