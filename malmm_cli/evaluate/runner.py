"""The library calls: a model evaluated on a data set, and the parts of its memory compared."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from malmm_cli import __version__
from malmm_cli.datasets.papers import SETS, Set, read_set
from malmm_cli.datasets.tasks import read_tasks
from malmm_cli.errors import UsageError
from malmm_cli.evaluate import ablation
from malmm_cli.evaluate.ablation import one_length
from malmm_cli.evaluate.ablation_plot import draw
from malmm_cli.evaluate.ablation_table import cells
from malmm_cli.evaluate.blind import blind_scores
from malmm_cli.evaluate.plots import require_matplotlib
from malmm_cli.evaluate.predict import Plan, Run, predict, provenance
from malmm_cli.evaluate.predictions import Prediction
from malmm_cli.evaluate.scores import Rule, score
from malmm_cli.events import SILENT, Events
from malmm_cli.formats import SCHEMA, check_writable, make_folder, target
from malmm_cli.models import registry
from malmm_cli.pipeline.loading import Model, check_is_model, load
from malmm_cli.settings import Changes, Defaults, by_kind, changed, check_paths
from malmm_cli.types import Task

__all__ = ["Ablation", "Evaluation", "Options", "ablate", "beside", "run"]

# A loaded model, its name or folder, or what loads one once everything else has been checked: that
# of the call or, with a folder, a trained variant.
Loaded = Model | str | Path | Callable[..., Model]


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
class Evaluation:
    """Scores of a model, and the predictions behind them, which are kept in the file `path`.

    `scores` are those of `malmm_cli.evaluate.scores`, `blind` the same of the blind guess, None
    where there is none; `paper` is what MA-LMM's authors report for the same set.
    """

    data: Path
    model: Model
    plan: Plan
    path: Path
    predictions: list[Prediction]
    scores: dict[str, Any]
    blind: dict[str, Any] | None
    paper: dict[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        """Return all but the predictions, for JSON."""
        head = _head(self.data, self.model, self.plan)
        return {**head, "scores": self.scores, "blind": self.blind, "paper": self.paper}


@dataclass(frozen=True)
class Ablation:
    """Scores by row, for each change to the memory; `folder` keeps the predictions of each row.

    `blind` are the scores of the blind guess, None where there is none.
    """

    data: Path
    model: Model
    plan: Plan
    folder: Path
    rows: list[dict[str, Any]]
    blind: dict[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, for JSON."""
        head = _head(self.data, self.model, self.plan)
        return {**head, "rows": self.rows, "cells": cells(self.rows), "blind": self.blind}

    def draw(self, path: Path) -> bool:
        """Write a picture of it; returns False and writes nothing if no evidence has an age."""
        return draw(self.rows, self.blind, path)


def run(
    data: str | Path,
    *,
    model: Loaded,
    predictions: str | Path | None = None,
    events: Events = SILENT,
    **options: Unpack[Options],
) -> Evaluation:
    """Evaluate a model on a data set, as `malmm eval` does.

    `predictions` is the file that keeps them (default: beside the data); those that are in it are
    not made again. `model` may be a function, which is called once the data has been checked. A
    video that cannot be used is reported to `events`, counted, and stops no other. Raises
    UsageError for data, settings or files that will not do.
    """
    check_paths(data=data)
    check_paths(optional=True, predictions=predictions)
    job = _job(Path(data), options)
    path = Path(predictions) if predictions else beside(job.data, "predictions.jsonl")
    if os.path.exists(path) and path.samefile(job.data):
        raise UsageError(f"{path}: is the DATA file", hint="choose another file with --predictions")
    check_writable(path, overwrite=True, read_back=True)
    path = target(path)
    loaded = _load(model)
    plan = job.plan(loaded.defaults)
    with _reported(events, path):
        (found,) = predict(job.tasks, loaded, [Run(plan, path)], **job.how, events=events)
    rule = job.rule(loaded.defaults)
    scores = score(job.tasks[: job.limit], found, rule)
    blind = job.blind(found, rule)
    return Evaluation(job.data, loaded, plan, path, found, scores, blind, job.paper)


def ablate(
    data: str | Path,
    *,
    model: Loaded,
    folder: str | Path | None = None,
    variants: str | Path | None = None,
    picture: str | Path | None = None,
    events: Events = SILENT,
    **options: Unpack[Options],
) -> Ablation:
    """Evaluate a model with one part of its memory changed at a time: `malmm eval --ablate`.

    Questions and captions have the same M, since a column of the table has one.

    `folder` keeps the predictions of each row (default: beside the data). `variants` is a folder of
    models that were trained as variants; `model` then is a function that also loads such a model
    from its folder. `picture` is where one will be drawn;
    that it can be is checked first.
    """
    check_paths(data=data)
    check_paths(optional=True, folder=folder, variants=variants, picture=picture)
    job = _job(Path(data), options)
    folder = Path(folder) if folder else beside(job.data, "ablation")
    if picture is not None:
        if Path(picture).suffix.lower() != ".png":
            raise UsageError(f"--picture {picture}: must end in .png")
        require_matplotlib()
        check_writable(Path(picture), overwrite=True)
    trained = ablation.find_trained(Path(variants)) if variants else []
    loaded = _load(model)
    plan, rule = one_length(job.plan(loaded.defaults), job.tasks), job.rule(loaded.defaults)
    make_folder(folder)
    with _reported(events, folder):
        rows, said = ablation.ablate(
            *(job.tasks, loaded, plan, folder),
            trained=trained,
            load=partial(_load, model),
            rule=rule,
            **job.how,
            events=events,
        )
    return Ablation(job.data, loaded, plan, folder, rows, job.blind(said, rule))


def beside(data: Path, suffix: str) -> Path:
    """The default path of a file made from data: data/test.jsonl → data/test.predictions.jsonl."""
    if data.stem in ("", ".."):  # "." has no name of its own
        data = Path(os.path.abspath(data))
    return data.with_name(f"{data.stem}.{suffix}")


@dataclass(frozen=True)
class _Job:
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


def _job(data: Path, options: Options) -> _Job:
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
    job = _Job(data, tasks, learnt, given, choices, limit, overwrite, known, source["task"])
    job.plan(registry.defaults())  # wrong values are wrong for every family
    return job


def _load(model: Loaded, *variant: Path) -> Model:
    """The loaded model; with a folder, a variant of it."""
    if not callable(model):
        check_is_model(model)
        if not isinstance(model, Model):
            return load(*(variant or (model,)))
        if variant:
            raise UsageError("variants need a function as model, which loads them")
        return model
    return model(*variant)


def _head(data: Path, model: Model, plan: Plan) -> dict[str, Any]:
    known = {"schema": SCHEMA, "malmm": __version__, "data": str(data)}
    return {**known, **provenance(model, plan), "device": model.device}


@contextmanager
def _reported(events: Events, path: Path) -> Iterator[None]:
    """Enclose the evaluation as a stage; after Ctrl-C, report where what was done is kept."""
    with events.stage("evaluation", "tasks"):
        try:
            yield
        except KeyboardInterrupt:
            events.interrupted(f"kept in {path}; run the same command to resume")
            raise
