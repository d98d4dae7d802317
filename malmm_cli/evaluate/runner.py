"""The library calls: a model evaluated on a data set, and the parts of its memory compared."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Unpack

from malmm_cli import __version__
from malmm_cli.errors import UsageError
from malmm_cli.evaluate import ablation
from malmm_cli.evaluate.ablation import one_length
from malmm_cli.evaluate.ablation_plot import draw
from malmm_cli.evaluate.ablation_table import cells
from malmm_cli.evaluate.job import Job, Options, beside, read_job
from malmm_cli.evaluate.plan import Plan, Run, provenance
from malmm_cli.evaluate.plots import check_redrawable, require_matplotlib
from malmm_cli.evaluate.predictions import Prediction
from malmm_cli.evaluate.scores import score
from malmm_cli.events import SILENT, Events
from malmm_cli.files.jsonl import lines_in
from malmm_cli.formats import SCHEMA, check_writable, make_folder, target
from malmm_cli.pipeline.model import Model, check_is_model
from malmm_cli.settings import check_paths

__all__ = ["Ablation", "Evaluation", "Options", "ablate", "beside", "run"]

# A loaded model, its name or folder, or what loads one once everything else has been checked: that
# of the call, whose `name` it may have, or, with a folder, a trained variant.
Loaded = Model | str | Path | Callable[..., Model]


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
    job = read_job(Path(data), options)
    path = Path(predictions) if predictions else beside(job.data, "predictions.jsonl")
    if os.path.exists(path) and path.samefile(job.data):
        raise UsageError(f"{path}: is the DATA file", hint="choose another file with --predictions")
    check_writable(path, overwrite=True, read_back=True)
    path = target(path)
    _check_named(model, job, path)
    loaded = _load(model)
    from malmm_cli.evaluate.predict import predict  # torch takes seconds

    plan = job.plan(loaded.defaults)
    with _reported(events, path):
        (found,) = predict(job.tasks, loaded, [Run(plan, path)], **job.how, events=events)
    with events.stage("scoring", ""):
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
    job = read_job(Path(data), options)
    folder = Path(folder) if folder else beside(job.data, "ablation")
    trained = ablation.find_trained(Path(variants)) if variants else []
    if picture is not None:
        if Path(picture).suffix.lower() != ".png":
            raise UsageError(f"--picture {picture}: must end in .png")
        require_matplotlib()
        check_redrawable(Path(picture), overwrite=job.overwrite)
    _check_named(model, job)
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
    with events.stage("scoring", ""):
        blind = job.blind(said, rule)
    return Ablation(job.data, loaded, plan, folder, rows, blind)


def _check_named(model: Loaded, job: Job, path: Path | None = None) -> None:
    """Check what a model's name, if there is one, tells before it is loaded."""
    name = model if isinstance(model, str | os.PathLike) else getattr(model, "name", None)
    if name is not None and not isinstance(model, Model):
        job.check_model(os.fspath(name), path)


def _load(model: Loaded, *variant: Path) -> Model:
    """The loaded model; with a folder, a variant of it."""
    if not callable(model):
        check_is_model(model)
        if not isinstance(model, Model):
            from malmm_cli.pipeline import loading  # and torch

            return loading.load(*(variant or (model,)))
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
            if _has_predictions(path):
                events.interrupted(f"kept in {path}; run the same command to resume")
            raise


def _has_predictions(path: Path) -> bool:
    """Whether a file, or one in a folder, has any line below its first, which is no prediction."""
    files = path.glob("*.jsonl") if path.is_dir() else [path]
    return any(len(list(islice(lines_in(file), 2))) == 2 for file in files)
