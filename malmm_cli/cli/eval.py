"""`malmm eval`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from malmm_cli.cli.console import complain, emit, note, warn
from malmm_cli.cli.options import RunOptions, with_options
from malmm_cli.cli.running import load_model, note_stages, shown_progress
from malmm_cli.errors import MalmmError, UsageError
from malmm_cli.files.escapes import to_json
from malmm_cli.formats import SCHEMA, check_writable, make_folder, target
from malmm_cli.settings import ASK, CAPTION

if TYPE_CHECKING:
    from malmm_cli.datasets.papers import Set
    from malmm_cli.evaluate.run import Plan
    from malmm_cli.evaluate.scores import Rule
    from malmm_cli.types import Task


_SETS = "jsonl, lvu, breakfast, coin, {msrvtt,msvd,activitynet}-qa, {msrvtt,msvd}-cap or youcook2"


def _named(metavar: str, told: str) -> Any:
    return typer.Option(metavar=metavar, help=told)


@with_options(without=("output", "format"))
def evaluate(
    data: Annotated[Path, typer.Argument(metavar="DATA", show_default=False)],
    format_in: Annotated[
        str, typer.Option(metavar="SET", help=f"Format of DATA: {_SETS}.")
    ] = "jsonl",
    videos: Annotated[Path | None, _named("FOLDER", "Folder of the data set's videos.")] = None,
    split: Annotated[str | None, _named("train|val|test", "Split to evaluate.")] = None,
    task: Annotated[str | None, _named("NAME", "Task of lvu.")] = None,
    predictions: Annotated[
        Path | None, _named("FILE.jsonl", "File for predictions; a folder with --ablate.")
    ] = None,
    choices: Annotated[
        bool, typer.Option("--choices", help="Pick the most likely of a task's choices.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Evaluate only the first N tasks.")
    ] = None,
    ablate: Annotated[
        bool,
        typer.Option("--ablate", help="Run the ablation: vary one part of the memory at a time."),
    ] = False,
    variants: Annotated[
        Path | None, _named("FOLDER", "Folder of models trained as variants, with --ablate.")
    ] = None,
    picture: Annotated[
        Path | None, _named("FILE.png", "PNG file for the plot of --ablate.")
    ] = None,
    *,
    options: RunOptions,
) -> None:
    """Evaluate a model on a data set.

    DATA holds one JSON object per line: id, video, question or prompt, answer or answers, and more.
    With --format-in, malmm reads the paper's data sets as published and uses the paper's settings.
    Otherwise questions use the defaults of `malmm ask`, and prompts those of `malmm caption`.

    Predictions are saved as they are made; rerun the same command to resume.

    \b
    malmm eval world/data.jsonl --frames 60 --memory 10
    malmm eval tasks.jsonl --choices --json
    malmm eval world/data.jsonl --ablate --variants trained/ --picture ablation.png
    malmm eval MA-LMM/data/msvd/annotation --format-in msvd-qa --videos MSVD/videos
    """
    known, tasks = _read(data, format_in, videos, split, task)
    if choices and not any(one.choices for one in tasks):
        raise UsageError(f"{data}: no task has 'choices'", hint="leave --choices out")
    job = _Job(options, data, tasks, _plan(options, known, choices), limit, known, task)
    if ablate:
        _ablate(job, predictions, picture, variants)
        return
    for option, value in (("--variants", variants), ("--picture", picture)):
        if value is not None:
            raise UsageError(f"{option} goes with --ablate")
    _evaluate(job, predictions or _beside(data, "predictions.jsonl"))


@dataclass(frozen=True)
class _Job:
    """What was asked for: tasks, how to answer them, and the set of the paper that they are of."""

    options: RunOptions
    data: Path
    tasks: list[Task]
    plan: Plan
    limit: int | None
    known: Set | None
    part: str | None

    @property
    def rule(self) -> Rule:
        """How predictions are scored."""
        from malmm_cli.evaluate.scores import Rule

        first_word = self.known is not None and self.known.first_word
        return Rule(self.plan.most(self.tasks).memory.length or ASK.memory.length, first_word)

    @property
    def paper(self) -> dict[str, Any] | None:
        """What MA-LMM's authors report for the same, and where."""
        if self.known is None:
            return None
        paper = self.known.paper
        results = {self.part: paper[self.part]} if self.part else dict(paper)
        return {"source": f"MA-LMM, CVPR 2024, table {self.known.table}", "results": results}


def _evaluate(job: _Job, path: Path) -> None:
    """Scores on stdout, predictions in a file."""
    from malmm_cli.evaluate import report, scores
    from malmm_cli.evaluate import run as evaluation

    if os.path.exists(path) and path.samefile(job.data):
        raise UsageError(f"{path}: is the DATA file", hint="choose another file with --predictions")
    check_writable(path, overwrite=True, read_back=True)
    path = target(path)
    model = load_model(job.options)
    with _running(job.options, path) as progress:
        runs = [evaluation.Run(job.plan, path)]
        (found,) = evaluation.run(job.tasks, model, runs, limit=job.limit, **progress)
    result = scores.score(job.tasks[: job.limit], found, job.rule)
    if job.options.json:
        about = {"schema": SCHEMA, "data": str(job.data), **evaluation.about(model, job.plan)}
        _emit_json({**about, "device": model.device, "scores": result, "paper": job.paper})
    else:
        emit(report.lines(result, job.paper))
    _finish(job.options, [result], path)


def _ablate(job: _Job, folder: Path | None, picture: Path | None, variants: Path | None) -> None:
    """The table on stdout, the picture in its file, each row's predictions in the folder."""
    from malmm_cli.evaluate import ablation
    from malmm_cli.evaluate.picture import draw
    from malmm_cli.evaluate.plots import require_matplotlib
    from malmm_cli.evaluate.run import about

    folder = folder or _beside(job.data, "ablation")
    picture = picture or _beside(job.data, "ablation.png")
    if picture.suffix.lower() != ".png":
        raise UsageError(f"--picture {picture}: must end in .png")
    require_matplotlib()
    check_writable(picture, overwrite=True)
    trained = ablation.find_trained(variants, job.plan) if variants else []
    model = load_model(job.options)
    make_folder(folder)
    with _running(job.options, folder) as progress:
        results = ablation.ablate(
            job.tasks,
            model,
            job.plan,
            folder,
            trained=trained,
            load=lambda place: load_model(replace(job.options, model=str(place))),
            rule=job.rule,
            limit=job.limit,
            **progress,
        )
    if job.options.json:
        about_all = {"schema": SCHEMA, "data": str(job.data), **about(model, job.plan)}
        _emit_json({**about_all, "device": model.device, "rows": results})
    else:
        emit(ablation.as_table(results))
    if not draw(results, picture):
        note("no plot: no question was answered")
    _finish(job.options, [result["scores"] for result in results], folder)


def _read(
    data: Path, form: str, videos: Path | None, split: str | None, part: str | None
) -> tuple[Set | None, list[Task]]:
    """The tasks of DATA; and the set that it is of, if that is one of the paper's."""
    from malmm_cli.datasets.papers import SETS, read_set
    from malmm_cli.datasets.tasks import read_tasks

    if form != "jsonl":
        tasks = read_set(data, form, videos=videos, split=split, part=part)
        return SETS[form], tasks
    for option, value in (("--videos", videos), ("--split", split), ("--task", part)):
        if value is not None:
            raise UsageError(
                f"{option} is only for the data sets of --format-in",
                hint="choose a data set with --format-in",
            )
    return None, read_tasks(data)


def _plan(options: RunOptions, known: Set | None, choices: bool) -> Plan:
    """What was asked for, above the set's own settings, above those of `ask` and `caption`."""
    from malmm_cli.evaluate.run import Plan

    bases = (known.questions, known.captions) if known else (ASK, CAPTION)
    questions, captions = options.for_both()
    return Plan(questions.settings(bases[0]), captions.settings(bases[1]), choices)


def _beside(data: Path, suffix: str) -> Path:
    """The place of what comes of DATA: data/test.jsonl → data/test.predictions.jsonl."""
    if data.stem in ("", ".."):  # "." has no name of its own
        data = Path(os.path.abspath(data))
    return data.with_name(f"{data.stem}.{suffix}")


@contextmanager
def _running(options: RunOptions, path: Path) -> Iterator[dict[str, Any]]:
    """What `evaluate.run` tells while it works; and after Ctrl-C, where to find what was done."""

    def tell(error: MalmmError) -> None:
        complain(error.message, error.hint)

    about: dict[str, Any] = {"overwrite": options.overwrite, "on_failure": tell}
    if options.verbose:
        about["on_seen"] = note_stages
    with shown_progress(options, "", unit="tasks") as update:
        try:
            yield {**about, "on_progress": update}
        except KeyboardInterrupt:
            note(f"kept in {path}; run the same command to resume")
            raise


def _emit_json(content: dict[str, Any]) -> None:
    emit(to_json(content, indent=2) + "\n")


def _finish(options: RunOptions, results: list[dict[str, Any]], path: Path) -> None:
    """Say what scores do not show; leave with exit code 1 if anything failed."""
    unscored = results[0]["captions"].get("unscored")
    if unscored:
        warn(unscored)
    tasks, failed = (sum(result[key] for result in results) for key in ("tasks", "failed"))
    if not options.quiet:
        note(f"{tasks - failed} of {tasks} tasks done: {path}")
    if failed:
        raise typer.Exit(1)
