"""Scores of predictions: overall, by kind, by age of evidence, by length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from malmm_cli.datasets.metrics import each_caption, is_right
from malmm_cli.errors import UsageError
from malmm_cli.evaluate.intervals import bootstrap, wilson
from malmm_cli.evaluate.meteor import meteor
from malmm_cli.evaluate.predictions import Prediction
from malmm_cli.types import Task

__all__ = ["LENGTHS", "Age", "Rule", "ages", "is_caption", "score", "step_edges"]

SECONDS = (0, 10, 30, 60, 120, 300, 600, 1200)  # ages of evidence
# of videos; a second above the round figure, so that one of about two minutes lies below it
LENGTHS = (0, 31, 61, 121, 301, 601, 1201)


@dataclass(frozen=True)
class Age:
    """How long before the end of what was looked at the evidence ended.

    In `seconds`, in `steps` from one frame to the next, and as a `share` of the part of the video
    that was looked at, 0 … 1.
    """

    seconds: float
    steps: float
    share: float


@dataclass(frozen=True)
class Rule:
    """`memory` frames tell new evidence from old; `first_word` of a text may be all that counts.

    Without `metrics`, captions are only matched exactly: METEOR takes seconds.
    """

    memory: int
    first_word: bool = False
    metrics: bool = True


def ages(tasks: Sequence[Task], predictions: Sequence[Prediction]) -> dict[str, Age]:
    """The age of the evidence of each task that tells when it can be seen."""
    found = {}
    for task, said in zip(tasks, predictions, strict=True):
        if task.evidence is None or said.text is None:
            continue
        length = said.end - said.start
        step = (said.last - said.first) / (said.frames - 1) if said.frames > 1 else length
        seconds = max(said.end - task.evidence[1], 0.0)
        if length > 0 and step > 0:
            found[task.id] = Age(seconds, seconds / step, min(seconds / length, 1.0))
    return found


def step_edges(memory: int) -> tuple[float, ...]:
    """Ages in steps at which bins begin, in terms of the memory's length."""
    return (0, memory / 2, memory, 2 * memory, 4 * memory)


def score(
    tasks: Sequence[Task],
    predictions: Sequence[Prediction],
    rule: Rule,
    known_ages: Mapping[str, Age] | None = None,
) -> dict[str, Any]:
    """All scores of predictions, 0 … 1, each with the count of tasks and its 95 % interval.

    Tasks that failed count nowhere but in `failed`. Those with neither question nor choices are
    scored as captions. `known_ages` are used instead of those of the predictions.
    """
    by_age = ages(tasks, predictions) if known_ages is None else known_ages
    done = [
        (task, said, is_right(said.text, task.answers, first_word=rule.first_word))
        for task, said in zip(tasks, predictions, strict=True)
        if said.text is not None
    ]
    captions = [(task, said, right) for task, said, right in done if is_caption(task)]
    asked = [(task, said, right) for task, said, right in done if not is_caption(task)]
    aged = [(by_age[task.id], right) for task, _, right in asked if task.id in by_age]
    kinds = dict.fromkeys(task.kind for task, _, _ in done if task.kind)
    return {
        "tasks": len(tasks),
        "failed": len(tasks) - len(done),
        "questions": _rate(right for _, _, right in asked),
        "kinds": {
            kind: _rate(right for task, _, right in done if task.kind == kind) for kind in kinds
        },
        "age": {
            "newer": _rate(right for age, right in aged if age.steps < rule.memory),
            "older": _rate(right for age, right in aged if age.steps >= rule.memory),
            "slots": rule.memory,
            "steps": _bins([(age.steps, right) for age, right in aged], step_edges(rule.memory)),
            "seconds": _bins([(age.seconds, right) for age, right in aged], SECONDS),
            "quarters": _bins([(age.share, right) for age, right in aged], (0, 0.25, 0.5, 0.75)),
        },
        "length": _bins([(said.duration, right) for _, said, right in asked], LENGTHS),
        "captions": _captions(captions, rule),
    }


def is_caption(task: Task) -> bool:
    """Whether a task is scored as a caption: there is nothing to ask and nothing to choose."""
    return task.question is None and not task.choices


def _captions(done: Sequence[tuple[Task, Prediction, bool]], rule: Rule) -> dict[str, Any]:
    """Scores of captions; where they cannot be scored, exact match and the reason.

    METEOR may be lacking alone: it is None then, and the reason is beside it.
    """
    rate = _rate(right for _, _, right in done)
    if not done or not rule.metrics:
        return rate
    texts, answers = [said.text or "" for _, said, _ in done], [task.answers for task, _, _ in done]
    try:
        scores, values = each_caption(texts, answers)
    except UsageError as error:
        return rate | {"unscored": f"{error.message}; {error.hint}"}
    intervals = {f"{name}_interval": bootstrap(each) for name, each in values.items()}
    scored = rate | scores | intervals
    try:
        return scored | {"meteor": meteor(texts, answers)}
    except UsageError as error:
        return scored | {"meteor": None, "meteor_unscored": f"{error.message}; {error.hint}"}


def _rate(rights: Iterable[bool]) -> dict[str, Any]:
    given = list(rights)
    right, count = sum(given), len(given)
    share = right / count if count else None
    return {"exact": share, "count": count, "interval": wilson(right, count)}


def _bins(given: Sequence[tuple[float, bool]], edges: Sequence[float]) -> list[dict[str, Any]]:
    """The rate of those from each edge to the next one, and from the last one on; none empty."""
    found = []
    for low, high in zip(edges, (*edges[1:], None), strict=True):
        inside = [right for at, right in given if low <= at and (high is None or at < high)]
        if inside:
            found.append({"from": low, "to": high, **_rate(inside)})
    return found
