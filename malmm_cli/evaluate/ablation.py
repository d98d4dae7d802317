"""The value of each part of the memory: one model with parts switched off or replaced."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from malmm_cli.checkpoints.layout import read_config
from malmm_cli.errors import UsageError
from malmm_cli.evaluate.naming import option, options_of
from malmm_cli.evaluate.plan import Plan, Run
from malmm_cli.evaluate.predictions import Prediction
from malmm_cli.evaluate.scores import Age, Rule, ages, score
from malmm_cli.pipeline.model import Model
from malmm_cli.settings import Defaults, MemoryOptions, Settings, changed
from malmm_cli.types import Task

__all__ = [
    "GIVEN",
    "SEEDS",
    "SWAPPED",
    "TRAINED",
    "Row",
    "ablate",
    "find_trained",
    "one_length",
    "swaps",
]

GIVEN, SWAPPED, TRAINED = "given", "changed at inference", "trained"

LENGTHS, FRAMES, NEWEST = (3, 5, 10, 20), (20, 40, 60, 100), 4
SEEDS = (0, 1, 2)  # of the policy that draws

# Models that were trained as variants, by the names of their folders, and how each is run.
VARIANTS: dict[str, dict[str, Any]] = {
    "both": {"banks": "both"},
    "visual": {"banks": "visual"},
    "query": {"banks": "query"},
    "none": {"banks": "none"},
    "fifo": {"policy": "fifo"},
    "m0": {"memory": 0},
}
# Another one of the same name: "both.1", trained with another seed.
VARIANT = re.compile(rf"({'|'.join(VARIANTS)})(?:\.(\d+))?")


@dataclass(frozen=True)
class Row:
    """A run of a model, by a name that does not change between versions.

    `line` and `column` are its place in the table: what is changed, and M, None where M does not
    matter. Runs in the same place differ in their seeds.
    """

    name: str
    how: str
    family: str
    line: str
    column: int | None
    options: str
    plan: Plan


def swaps(plan: Plan, settings: Settings, defaults: Defaults) -> Iterator[Row]:
    """The plan as it is, called by settings of it, and with one thing changed, again and again.

    Changes of what a bank does are made at every M. Policies and the like are those in `defaults`,
    of the model's family.
    """
    given = settings.memory.length
    lengths = sorted({*LENGTHS, given} - {0})
    column = given if _has_slots(settings.memory) else None
    line = f"{GIVEN}: {settings.memory.policy}"
    names = ("banks", "policy", "memory", "frames", "fps", *settings.memory.compression)
    whole = options_of(settings.as_dict(), names)
    yield Row(_name(settings), GIVEN, "given", line, column, whole, plan)
    for length in lengths:
        longer = _changed(plan, memory=length)
        if longer != plan and _has_slots(longer.questions.memory):
            options = option("memory", length)
            yield Row(f"M = {length}", SWAPPED, "memory", line, length, options, longer)
    for change in _changes(defaults):
        yield from _runs(change, plan, column, lengths)
    newest = f"last {NEWEST} frames"
    yield Row(newest, SWAPPED, "frames", newest, column, newest, replace(plan, newest=NEWEST))


@dataclass(frozen=True)
class _Change:
    name: str
    family: str
    changes: dict[str, Any]


def _changes(defaults: Defaults) -> Iterator[_Change]:
    for policy in defaults.policies:
        yield _Change(policy, "policy", {"policy": policy})
    compression = {"merge": defaults.merges, "mean": defaults.means, "fill": defaults.fills}
    for name, values in compression.items():
        for value in values:
            yield _Change(f"{name} {value}", name, {name: value})
    for banks in defaults.banks:
        yield _Change(f"banks {banks}", "banks", {"banks": banks})
    yield _Change("M = 0", "memory", {"memory": 0})
    for frames in FRAMES:
        changes = {"frames": frames, "fps": None, "max_frames": None}
        yield _Change(f"{frames} frames", "frames", changes)


def _runs(change: _Change, plan: Plan, column: int | None, lengths: Sequence[int]) -> Iterator[Row]:
    """A change at every M that matters to it, and with every seed."""
    swapped = _changed(plan, **change.changes)
    draws = change.changes.get("policy") == "random"
    if swapped == plan and not draws:
        return
    line = option(*next(iter(change.changes.items())))

    def row(column: int | None, plan: Plan, name: str = "", **more: int) -> Row:
        options = " ".join([line, *(option(name, value) for name, value in more.items())])
        return Row(
            change.name + name,
            SWAPPED,
            change.family,
            line,
            column,
            options,
            _changed(plan, **more),
        )

    if change.family in ("memory", "frames"):
        yield row(None if change.family == "memory" else column, swapped)
    elif not _has_slots(replace(swapped.questions.memory, length=1)):
        yield row(None, swapped)
    else:
        for length in lengths:
            at = {} if length == column else {"memory": length}
            name = "" if length == column else f", M = {length}"
            for seed in SEEDS if draws else ():
                yield row(length, swapped, f"{name}, seed {seed}", **at, memory_seed=seed)
            if not draws:
                yield row(length, swapped, name, **at)


def _has_slots(memory: MemoryOptions) -> bool:
    """Whether it matters how many slots there are."""
    return memory.keeps_visual or memory.keeps_queries


def _name(settings: Settings) -> str:
    """The original values of what the swaps change."""
    sampling, memory = settings.sampling, settings.memory
    frames = f"{sampling.fps:g} fps" if sampling.fps else f"{sampling.frames} frames"
    return f"{memory.banks}, {memory.policy}, M = {memory.length}, {frames}"


def find_trained(folder: Path) -> list[Path]:
    """The folders under one that are named as in VARIANTS, or so with a number: both, both.1.

    Raises UsageError if there is none, ModelError for one that is not a model.
    """
    names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    found = [(match, name) for name in names if (match := VARIANT.fullmatch(name))]
    if not found:
        raise UsageError(
            f"{folder}: contains no folder of a trained variant",
            hint=f"expected names: {', '.join(VARIANTS)}; or with a number, as in both.1",
        )
    order = list(VARIANTS)
    found.sort(key=lambda one: (order.index(one[0][1]), int(one[0][2] or 0), one[1]))
    for _, name in found:
        read_config(folder / name)
    return [folder / name for _, name in found]


def one_length(plan: Plan, tasks: Sequence[Task]) -> Plan:
    """The plan with one M for everything, that of `Plan.most`: what a column of the table has."""
    return _changed(plan, memory=plan.most(tasks).memory.length)


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
) -> tuple[list[dict[str, Any]], list[Prediction]]:
    """Scores of every row, for JSON, and the predictions of the plan as it is.

    `folder` keeps the predictions of each row in a file of its own. Features are encoded once for
    all rows of a model that look at the same frames. Evidence is as old as in the plan given,
    whatever frames a row looks at. Captions are only matched exactly. `options` are those of
    `predict`; `load` is called for one trained model after the other.
    """
    from malmm_cli.evaluate.predict import predict  # and torch

    settings = plan.most(tasks)
    rows = list(swaps(plan, settings, model.defaults))
    found = predict(tasks, model, [_run(row, folder) for row in rows], **options)
    done, rule = tasks[: len(found[0])], replace(rule, metrics=False)
    known = ages(done, found[0])
    results = [_scored(row, done, said, rule, known) for row, said in zip(rows, found, strict=True)]
    for variant in trained:
        row = _trained(variant.name, plan, settings.memory.length)
        (said,) = predict(tasks, load(variant), [_run(row, folder)], **options)
        results.append(_scored(row, done, said, rule, known))
    return results, found[0]


def _trained(name: str, plan: Plan, length: int) -> Row:
    """The run of a model that was trained as a variant."""
    match = VARIANT.fullmatch(name)
    assert match
    changes = VARIANTS[match[1]]
    own = _changed(plan, **changes)
    column = length if _has_slots(own.questions.memory) else None
    options = " ".join(option(name, value) for name, value in changes.items())
    return Row(name, TRAINED, "trained", f"{match[1]}, trained", column, options, own)


def _scored(
    row: Row,
    tasks: Sequence[Task],
    said: list[Prediction],
    rule: Rule,
    known: dict[str, Age],
) -> dict[str, Any]:
    place = {"line": row.line, "column": row.column}
    about = {
        "name": row.name,
        "options": row.options,
        "how": row.how,
        "family": row.family,
        **place,
    }
    return {**about, **row.plan.as_dict(), "scores": score(tasks, said, rule, known)}


def _changed(plan: Plan, **changes: Any) -> Plan:
    return replace(
        plan,
        questions=changed(plan.questions, **changes),
        captions=changed(plan.captions, **changes),
    )


def _run(row: Row, folder: Path) -> Run:
    """The row's plan, and the file in the folder that keeps its predictions."""
    name = row.name.replace(",", "").replace(" = ", "-").replace(" ", "-").lower()
    name = {GIVEN: GIVEN, TRAINED: f"trained-{name}"}.get(row.how, name)
    return Run(row.plan, folder / f"{name}.jsonl")
