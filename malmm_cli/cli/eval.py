"""The command `malmm eval`."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from malmm_cli.cli.completion import one_of
from malmm_cli.cli.console import emit, note, warn
from malmm_cli.cli.options import RunOptions, with_options
from malmm_cli.cli.running import load_model
from malmm_cli.cli.terminal import Terminal
from malmm_cli.errors import UsageError
from malmm_cli.files.escapes import to_json
from malmm_cli.text.words import counted

if TYPE_CHECKING:
    from malmm_cli.evaluate import Ablation, Evaluation
    from malmm_cli.pipeline.model import Model


_SETS = "jsonl, lvu, breakfast, coin, {msrvtt,msvd,activitynet}-qa, {msrvtt,msvd}-cap or youcook2"


def _complete_set(incomplete: str) -> list[str]:
    from malmm_cli.datasets.papers import SETS

    return one_of(["jsonl", *SETS])(incomplete)


def _named(metavar: str, text: str, panel: str = "Data", **keywords: Any) -> Any:
    return typer.Option(metavar=metavar, help=text, rich_help_panel=panel, **keywords)


def _flag(name: str, text: str, panel: str) -> Any:
    return typer.Option(name, help=text, rich_help_panel=panel)


@with_options(without=("output", "format"))
def evaluate(
    data: Annotated[Path, typer.Argument(metavar="DATA", show_default=False)],
    format_in: Annotated[
        str, _named("SET", f"Format of DATA: {_SETS}.", autocompletion=_complete_set)
    ] = "jsonl",
    videos: Annotated[Path | None, _named("FOLDER", "Folder of the data set's videos.")] = None,
    split: Annotated[str | None, _named("train|val|test", "Split to evaluate.")] = None,
    task: Annotated[str | None, _named("NAME", "Task of lvu.")] = None,
    predictions: Annotated[
        Path | None, _named("FILE.jsonl", "File for predictions; a folder with --ablate.", "Output")
    ] = None,
    choices: Annotated[
        bool, _flag("--choices", "Pick the most likely of a task's choices.", "Data")
    ] = False,
    limit: Annotated[int | None, _named("N", "Evaluate only the first N tasks.", min=1)] = None,
    guess_from: Annotated[
        Path | None, _named("FILE.jsonl", "Tasks to learn the blind guess from, not DATA.")
    ] = None,
    ablate: Annotated[
        bool, _flag("--ablate", "Vary one part of the memory at a time.", "Ablation")
    ] = False,
    variants: Annotated[
        Path | None,
        _named("FOLDER", "Folder of models trained as variants, with --ablate.", "Ablation"),
    ] = None,
    picture: Annotated[
        Path | None, _named("FILE.png", "PNG file for the plot of --ablate.", "Ablation")
    ] = None,
    *,
    options: RunOptions,
) -> None:
    """Evaluate a model on a data set.

    DATA, or data.jsonl in the folder DATA, holds one JSON object per line: id, video, question or
    prompt, answer or answers, and more.

    With --format-in, malmm reads the paper's data sets as published and uses the paper's settings.
    Otherwise questions use the defaults of `malmm ask`, and prompts those of `malmm caption`.

    Predictions are saved as they are made; rerun the same command to resume.

    \b
    malmm eval world/data.jsonl --frames 60 --memory 10
    malmm eval tasks.jsonl --choices --json
    malmm eval world/data.jsonl --ablate --variants trained/
    malmm eval msvd/annotation --format-in msvd-qa --videos MSVD/videos
    """
    data = _file_of(data, format_in)
    with Terminal.of(options).stage("starting", ""):
        from malmm_cli.evaluate import runner as evaluation

    arguments = _shared(options) | {"choices": choices, "limit": limit, "guess_from": guess_from}
    arguments |= {"format": format_in, "videos": videos, "split": split, "task": task}
    if ablate:
        picture = picture or evaluation.beside(data, "ablation.png")
        arguments |= {"folder": predictions, "variants": variants, "picture": picture}
        _print_ablation(options, evaluation.ablate(data, **arguments), picture)
        return
    _check_unset("--ablate", variants=variants, picture=picture)
    _print_scores(options, evaluation.run(data, predictions=predictions, **arguments))


def _file_of(data: Path, format_in: str) -> Path:
    """The data file, which a folder made by `malmm synth` has under its usual name.

    Raises UsageError where there is none.
    """
    from malmm_cli.datasets.tasks import check_file

    if format_in != "jsonl":
        return data
    is_folder = os.path.isdir(data)  # unlike that of Path, False for what cannot be looked at
    file = data / "data.jsonl" if is_folder else data
    try:
        os.lstat(file)
    except PermissionError as error:
        raise UsageError(f"{file}: permission denied", hint="check its permissions") from error
    except OSError as error:
        from malmm_cli.batch.missing import similar  # not needed for help

        what = f"{data}: has no data.jsonl" if is_folder else f"{data}: no such file or folder"
        hint = similar(str(data)) or "give a file with one JSON object per line"
        raise UsageError(what, hint=hint, kind="Missing") from error
    check_file(file)
    return file


def _check_unset(needed: str, **options: object) -> None:
    """Raise UsageError for an option given without the one that it goes with."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"--{name} goes with {needed}")


def _shared(options: RunOptions) -> dict[str, Any]:
    """What the shared options say, as arguments of the library calls."""
    options.settings("ask")  # refuses wrong values, as far as the model is known
    more = {"overwrite": options.overwrite, "events": Terminal.of(options)}
    return {"model": _Loader(options), **more, **options.changes()}


@dataclass(frozen=True)
class _Loader:
    """Loads the model that was asked for or, from its folder, a trained variant."""

    options: RunOptions

    @property
    def name(self) -> str:
        """What is known of it before it is loaded."""
        return self.options.model

    def __call__(self, folder: Path | None = None) -> Model:
        model = self.name if folder is None else str(folder)
        return load_model(replace(self.options, model=model))


def _print_scores(options: RunOptions, found: Evaluation) -> None:
    """Scores on stdout; predictions are in their file."""
    from malmm_cli.evaluate import report

    if options.json:
        _emit_json(found.as_dict())
    else:
        text = report.lines(found.scores, found.paper, found.blind)
        emit(report.head(found.as_dict(), found.scores) + text)
    _finish(options, [found.scores], found.path)


def _print_ablation(options: RunOptions, found: Ablation, picture: Path) -> None:
    """The table on stdout, the picture in its file."""
    from malmm_cli.evaluate import report
    from malmm_cli.evaluate.ablation_table import as_table

    if options.json:
        _emit_json(found.as_dict())
    else:
        head = report.head(found.as_dict(), found.rows[0]["scores"])
        emit(head + as_table(found.rows, found.blind))
    if not found.draw(picture) and not options.quiet:
        note("no plot: no answered question has evidence of known age")
    _finish(options, [row["scores"] for row in found.rows], found.folder)


def _emit_json(content: dict[str, Any]) -> None:
    emit(to_json(content, indent=2) + "\n")


def _finish(options: RunOptions, results: list[dict[str, Any]], path: Path) -> None:
    """Say what scores do not show; leave with exit code 1 if anything failed."""
    unscored = results[0]["captions"].get("unscored")
    if unscored:
        warn(unscored)
    tasks, failed = (sum(result[key] for result in results) for key in ("tasks", "failed"))
    if not options.quiet:
        note(f"{tasks - failed} of {counted(tasks, 'task')} done: {path}")
    if failed:
        raise typer.Exit(1)
