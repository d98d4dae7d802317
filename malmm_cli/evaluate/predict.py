"""Tasks → predictions; each video is decoded and encoded once for all its tasks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from malmm_cli.errors import MalmmError
from malmm_cli.evaluate.plan import Plan, Run, provenance
from malmm_cli.evaluate.predictions import Kept, Prediction, digest, kept
from malmm_cli.events import SILENT, Events
from malmm_cli.models.base import Context
from malmm_cli.models.device import Clock
from malmm_cli.models.shortage import Step
from malmm_cli.pipeline import answer, watch
from malmm_cli.pipeline.features import VideoFeatures, encode
from malmm_cli.pipeline.loading import capacity, no_help
from malmm_cli.pipeline.look_again import shown
from malmm_cli.pipeline.model import Model
from malmm_cli.pipeline.watch import Watched
from malmm_cli.settings import Decoding, Sampling, Settings
from malmm_cli.types import Task

__all__ = ["predict"]

# Visual tokens before choices that are weighed at a time: the scores of all words at each of them
# are held at once.
VISUAL = 2048

Encoded = dict[Sampling, VideoFeatures]


def predict(
    tasks: Sequence[Task],
    model: Model,
    runs: Sequence[Run],
    *,
    limit: int | None = None,
    overwrite: bool = False,
    events: Events = SILENT,
) -> list[list[Prediction]]:
    """The prediction for each task, or for the first `limit`, in each run, in their order.

    What a run's file holds is not done again, failures apart. A video that cannot be used is
    reported to `events`, recorded for each of its tasks, and stops no other; so is how long each
    stage took for tasks that look at a video in the same way. Raises UsageError before anything is
    done if a file holds something else.
    """
    known = {"tasks": digest(tasks)}
    tasks = tasks[:limit]
    with ExitStack() as stack:
        files = [
            stack.enter_context(
                kept(one.path, known | provenance(model, one.plan), overwrite=overwrite)
            )
            for one in runs
        ]
        total = len(tasks) * len(runs)
        done = total - sum(len(_missing(tasks, file)) for file in files)
        if done:  # before: at once, so that it counts in no rate
            events.progress("evaluation", done, total, "tasks")
        for group in _groups(tasks):
            encoded: Encoded | None = {} if len(runs) > 1 else None
            for one, file in zip(runs, files, strict=True):
                if rest := _missing(group, file):
                    _answer(rest, model, one.plan, file, encoded, events)
                    done += len(rest)
                    events.progress("evaluation", done, total, "tasks")
        return [[file.found[task.id] for task in tasks] for file in files]


def _groups(tasks: Sequence[Task]) -> list[list[Task]]:
    """Tasks about the same part of a video, in the order in which they come first."""
    groups: dict[tuple[Any, ...], list[Task]] = {}
    for task in tasks:
        groups.setdefault((task.video, task.start, task.end), []).append(task)
    return list(groups.values())


def _alike(tasks: Sequence[Task], plan: Plan) -> list[list[Task]]:
    """Tasks of a group that look at the same frames with the same memory.

    Those with another maximum length of answers are separate: they may exceed the context.
    """
    groups: dict[Settings, list[Task]] = {}
    for task in tasks:
        settings = plan.settings(task)
        plain = Decoding(max_new_tokens=settings.decoding.max_new_tokens)
        groups.setdefault(replace(settings, prompt="", decoding=plain), []).append(task)
    return list(groups.values())


def _missing(tasks: Sequence[Task], file: Kept) -> list[Task]:
    """The tasks without a prediction in the file, or with a failure."""
    return [task for task in tasks if task.id not in file.found or file.found[task.id].error]


def _answer(
    group: list[Task],
    model: Model,
    plan: Plan,
    file: Kept,
    encoded: Encoded | None,
    events: Events,
) -> None:
    """Add a group's predictions to the file; `encoded` holds features from before."""
    for tasks in _alike(group, plan):
        try:
            with capacity(without=no_help(plan.settings(tasks[0]).memory)):
                predictions, seen = _predict(tasks, model, plan, encoded)
            events.timing(tasks[0].video, seen.frames, seen.info.duration, seen.seconds)
        except Exception as error:  # a fault of ours too: the other videos are to be done
            failure = _as_malmm_error(tasks[0].video, error)
            events.failed(failure)
            reason = {"kind": failure.kind, "message": failure.message}
            predictions = [
                Prediction(task.id, task.video, plan.prompt(task), error=reason) for task in tasks
            ]
        for prediction in predictions:
            file.add(prediction)


def _as_malmm_error(video: str, error: Exception) -> MalmmError:
    if isinstance(error, MalmmError):
        if video in error.message:
            return error
        return MalmmError(f"{video}: {error.message}", hint=error.hint, kind=error.kind)
    return MalmmError(f"{video}: {type(error).__name__}: {error}", kind="Unexpected")


def _predict(
    tasks: list[Task], model: Model, plan: Plan, encoded: Encoded | None
) -> tuple[list[Prediction], Watched]:
    """The model's answers to tasks that use the same frames of a video, and those frames."""
    settings = plan.settings(tasks[0])
    prompts = [plan.prompt(task) for task in tasks]
    video = tasks[0].video
    features = None
    if encoded is not None or plan.newest is not None:
        features = _encode(video, model, settings, {} if encoded is None else encoded)
    if features and plan.newest is not None:
        features = features.newest(plan.newest)
    seen, context = watch.watch_whole(features or video, prompts, model, settings)
    free: dict[Decoding, list[int]] = {}
    for k, task in enumerate(tasks):
        if not (plan.choices and task.choices):
            free.setdefault(plan.settings(task).decoding, []).append(k)
    texts: dict[int, str] = {}
    predictions = []
    with Clock(model.net.device, seen.seconds)("generate"):
        for decoding, indices in free.items():
            asked = [prompts[k] for k in indices]
            for which, own, _ in shown(seen, context.chosen(indices), asked, model, settings):
                found = answer.answered(model.net, own, [asked[k] for k in which], decoding)
                texts |= {
                    indices[k]: candidates[0] for k, candidates in zip(which, found, strict=True)
                }
        for k, task in enumerate(tasks):
            weighed = None
            if k not in texts:
                alone = (seen, context.chosen([k]), [prompts[k]], model, settings)
                (_, own, _) = next(shown(*alone))
                weighed = _weigh(model, own, prompts[k], task.choices)
            text = texts[k] if weighed is None else max(weighed, key=weighed.__getitem__)
            predictions.append(_prediction(task, prompts[k], text, weighed, seen, settings))
    return predictions, seen


def _prediction(
    task: Task,
    prompt: str,
    text: str,
    weighed: dict[str, float] | None,
    seen: Watched,
    settings: Settings,
) -> Prediction:
    duration, end = seen.info.duration, settings.sampling.end
    return Prediction(
        id=task.id,
        video=task.video,
        prompt=prompt,
        text=text,
        likelihoods=weighed,
        frames=seen.frames,
        first=round(seen.first, 3),
        last=round(seen.last, 3),
        start=round(settings.sampling.start or 0.0, 3),
        end=round(duration if end is None else min(end, duration), 3),
        duration=round(duration, 3),
        warnings=list(seen.warnings) or None,
    )


def _weigh(model: Model, context: Context, prompt: str, choices: Sequence[str]) -> dict[str, float]:
    """The log-likelihood of each choice after the context of the one prompt."""
    size = min(max(VISUAL // context.tokens.shape[1], 1), len(choices))
    step = Step(model.net, size, "weigh {}", "choice")
    scores = list[float]()
    while len(scores) < len(choices):
        with step:
            part = choices[len(scores) : len(scores) + step.size]
            shared = context.chosen([0] * len(part))
            scores += model.net.score(shared, [prompt] * len(part), part).tolist()
    return dict(zip(choices, scores, strict=True))


def _encode(video: str, model: Model, settings: Settings, encoded: Encoded) -> VideoFeatures:
    """The encoded frames that settings choose, from before if there are."""
    sampling = settings.sampling
    if sampling not in encoded:
        encoded[sampling] = encode(video, model, settings)
    return encoded[sampling]
