"""The value of each part of the memory: one model with parts switched off or replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from malmm_cli.checkpoints.layout import read_config
from malmm_cli.errors import UsageError
from malmm_cli.evaluate.naming import option, options_of
from malmm_cli.evaluate.plan import Plan, Run
from malmm_cli.evaluate.predictions import Prediction
from malmm_cli.evaluate.report import interval, percent, seconds_text, table
from malmm_cli.evaluate.scores import Age, Rule, ages, score
from malmm_cli.pipeline.model import Model
from malmm_cli.settings import Defaults, Settings, changed
from malmm_cli.types import Task

__all__ = ["GIVEN", "SWAPPED", "TRAINED", "Row", "ablate", "as_table", "find_trained", "swaps"]

GIVEN, SWAPPED, TRAINED = "given", "changed at inference", "trained"

LENGTHS, FRAMES, NEWEST = (5, 10, 20, 40), (20, 40, 60, 100), 4

# Folders of models that were trained as variants, and how each is run.
VARIANTS: dict[str, dict[str, Any]] = {
    "both": {"banks": "both"},
    "visual": {"banks": "visual"},
    "query": {"banks": "query"},
    "none": {"banks": "none"},
    "fifo": {"policy": "fifo"},
    "m0": {"memory": 0},
}


@dataclass(frozen=True)
class Row:
    """A way to run a model: its name, whether it was trained for that, and its family."""

    name: str
    how: str
    family: str
    plan: Plan


def swaps(plan: Plan, settings: Settings, defaults: Defaults) -> Iterator[Row]:
    """The plan as it is, called by settings of it, and with one thing changed, again and again.

    Policies and banks are those in `defaults`, of the model's family.
    """
    yield Row(_name(settings), GIVEN, "given", plan)
    for name, family, changes in _changes(defaults):
        swapped = _changed(plan, changes)
        if swapped != plan:
            yield Row(name, SWAPPED, family, swapped)
    yield Row(f"last {NEWEST} frames", SWAPPED, "frames", replace(plan, newest=NEWEST))


def _name(settings: Settings) -> str:
    """The original values of what the swaps change."""
    sampling, memory = settings.sampling, settings.memory
    frames = f"{sampling.fps:g} fps" if sampling.fps else f"{sampling.frames} frames"
    return f"{memory.banks}, {memory.policy}, M = {memory.length}, {frames}"


def _changes(defaults: Defaults) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for banks in defaults.banks:
        yield f"banks {banks}", "banks", {"banks": banks}
    for policy in defaults.policies:
        yield policy, "policy", {"policy": policy}
    for length in LENGTHS:
        yield f"M = {length}", "memory", {"memory": length}
    yield "M = 0", "memory", {"memory": 0}
    for frames in FRAMES:
        yield f"{frames} frames", "frames", {"frames": frames, "fps": None, "max_frames": None}


def find_trained(folder: Path) -> list[Path]:
    """The folders of VARIANTS under one.

    Raises UsageError if there is none, ModelError for one that is not a model.
    """
    found = [folder / name for name in VARIANTS if (folder / name).is_dir()]
    if not found:
        raise UsageError(
            f"{folder}: contains no folder of a trained variant",
            hint=f"expected names: {', '.join(VARIANTS)}",
        )
    for folder in found:
        read_config(folder)
    return found


def ablate(
    tasks: Sequence[Task],
    model: Model,
    plan: Plan,
    folder: Path,
    *,
    trained: Sequence[Path] = (),
    load: Callable[[Path], Model],
    rule: Rule,
    **options: Any,
) -> list[dict[str, Any]]:
    """Scores of every row, for JSON; `folder` keeps the predictions of each in a file of its own.

    Features are encoded once for all rows of a model that look at the same frames. Evidence is as
    old as in the plan given, whatever frames a row looks at. `options` are those of `predict`;
    `load` is called for one trained model after the other.
    """
    from malmm_cli.evaluate.predict import predict  # and torch

    rows = list(swaps(plan, plan.most(tasks), model.defaults))
    runs = [Run(row.plan, folder / f"{_file_name(row)}.jsonl") for row in rows]
    found = predict(tasks, model, runs, **options)
    known = ages(tasks[: len(found[0])], found[0])

    def scored(row: Row, said: list[Prediction]) -> dict[str, Any]:
        return _scored(row, tasks[: len(said)], said, rule, known)

    results = [scored(row, said) for row, said in zip(rows, found, strict=True)]
    for variant in trained:
        row = Row(variant.name, TRAINED, "trained", _changed(plan, VARIANTS[variant.name]))
        one = Run(row.plan, folder / f"{_file_name(row)}.jsonl")
        (said,) = predict(tasks, load(variant), [one], **options)
        results.append(scored(row, said))
    return results


def as_table(results: Sequence[dict[str, Any]]) -> str:
    """One line for each row: right answers in percent, by age of evidence and length of video.

    Its second line has the number of tasks, which is that of the first row. The interval is that
    of the column before it.
    """
    lengths = {found["from"]: found for result in results for found in result["scores"]["length"]}
    slots = results[0]["scores"]["age"]["slots"]
    captions = any(result["scores"]["captions"]["count"] for result in results)
    nothing = {"exact": None, "count": 0, "interval": None}

    def rates(result: dict[str, Any]) -> list[dict[str, Any]]:
        scores = result["scores"]
        by_length = {found["from"]: found for found in scores["length"]}
        found = [scores["questions"], scores["age"]["newer"], scores["age"]["older"]]
        found += [by_length.get(low, nothing) for low in sorted(lengths)]
        return found + [scores["captions"]] * captions

    names = ["questions", f"newer than {slots}", f"{slots} or older"]
    names += [_length(lengths[low]) for low in sorted(lengths)] + ["captions"] * captions
    counts = [str(rate["count"] or "–") for rate in rates(results[0])]
    main = 0 if results[0]["scores"]["questions"]["count"] else len(names) - 1
    lines = [
        ["", "", *_inserted(names, main, "95 % interval"), "failed"],
        ["n", "", *_inserted(counts, main, ""), ""],
    ]
    for result in results:
        found = rates(result)
        cells = _inserted([*map(percent, found)], main, interval(found[main]))
        failed = str(result["scores"]["failed"] or "")
        lines.append([result["options"], result["how"], *cells, failed])
    return table(lines, left=2)


def _inserted(cells: list[str], index: int, cell: str) -> list[str]:
    """Cells with another one behind the one at an index."""
    return [*cells[: index + 1], cell, *cells[index + 1 :]]


def _length(found: dict[str, Any]) -> str:
    if found["to"] is None:
        return f"over {seconds_text(found['from'])}"
    return f"to {seconds_text(found['to'])}"


def _scored(
    row: Row,
    tasks: Sequence[Task],
    said: list[Prediction],
    rule: Rule,
    known: dict[str, Age],
) -> dict[str, Any]:
    scores = score(tasks, said, rule, known)
    provenance = {"name": row.name, "how": row.how, "family": row.family}
    provenance["options"] = _options(row, row.plan.most(tasks).as_dict())
    return {**provenance, **row.plan.as_dict(), "scores": scores}


def _options(row: Row, settings: dict[str, Any]) -> str:
    """What a row changes, as the command line names it: "--memory 5"."""
    if row.how == GIVEN:
        return options_of(settings, ("banks", "policy", "memory", "frames", "fps"))
    if row.how == TRAINED:
        return " ".join(option(name, value) for name, value in VARIANTS[row.name].items())
    return row.name if row.plan.newest else options_of(settings, [row.family])


def _changed(plan: Plan, changes: dict[str, Any]) -> Plan:
    return replace(
        plan,
        questions=changed(plan.questions, **changes),
        captions=changed(plan.captions, **changes),
    )


def _file_name(row: Row) -> str:
    if row.how == GIVEN:
        return GIVEN
    name = row.name.replace(" = ", "-").replace(" ", "-").lower()
    return f"trained-{name}" if row.how == TRAINED else name
