"""A whole training run: saved, resumed, validated, logged."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import torch

from malmm_cli.errors import UsageError
from malmm_cli.events import SILENT, Events
from malmm_cli.files.jsonl import StoredLine, lines_in, open_lines, without
from malmm_cli.files.schema import checked
from malmm_cli.files.strict_json import load
from malmm_cli.models.base import Trainable
from malmm_cli.processes.interrupts import Patience
from malmm_cli.settings import Decoding, Settings
from malmm_cli.train import checkpoint
from malmm_cli.train.learner import Learner
from malmm_cli.train.recipe import Recipe
from malmm_cli.train.samples import Sample, Samples, Source
from malmm_cli.train.workers import Workers

__all__ = ["fit", "longest_answer"]

Best = dict[str, float] | None


def fit(
    net: Trainable[Any],
    source: Source,
    recipe: Recipe,
    settings: Settings,
    folder: Path,
    *,
    steps: int,
    validation: Samples | None = None,
    save_every: int = 500,
    provenance: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    workers: Workers | None = None,
    events: Events = SILENT,
) -> Path:
    """Train net for `steps` in all, and return the file of what it learnt, in `folder`.

    Every `save_every` steps, at the end and at Ctrl-C a checkpoint is written; a run that finds one
    in `folder` goes on from it, and ends as if it had not been interrupted. `provenance` has more
    settings that must then be the same. With `validation` what is returned, and left in net, is
    the best of the parameters that were validated, at each checkpoint but Ctrl-C's: most exact
    answers first, then the lowest loss; without, it is the last.

    Raises UsageError for a checkpoint of other settings, ModelError for one that is broken or of
    another shape and where a loss is NaN or infinite, OutputError where nothing can be written.
    """
    workers = workers or Workers()
    learner = Learner(net, recipe, settings, steps=steps, dtype=dtype, workers=workers)
    same = {**asdict(recipe.settled()), "steps": steps, **_memory(settings)}
    provenance = same | (provenance or {})
    done, best = _resume(folder, learner, provenance, events)
    _check_alike(workers, provenance | {"done": done})
    kept = _Kept(folder, learner, provenance, workers)
    longest = longest_answer(net, validation.samples if validation else ())
    decoding = Decoding(max_new_tokens=longest, beams=1, repetition_penalty=1.0)
    with Patience().listening() as stopped, _own_randomness(net), kept.log(done) as log:
        for number in range(done, steps):
            if workers.total(bool(stopped))[0]:
                kept.save(number, best)
                events.note(f"step {number} of {steps} saved; rerun the same command to resume")
                stopped.stop()
            begin = time.perf_counter()
            learnt = learner.step(number, source.draw(number))
            log(
                {"step": number + 1, "loss": learnt.loss, "lr": learnt.rate}
                | {"seconds": time.perf_counter() - begin, "samples": learnt.samples}
            )
            events.progress("training", number + 1, steps, "steps")
            if (number + 1) % save_every and number + 1 < steps:
                continue
            line = f"step {number + 1} of {steps}: loss {learnt.loss:.4f}"
            if validation is not None:
                found = asdict(learner.validate(validation.all(), decoding))
                log({"step": number + 1, "validation": found})
                line += f", validation {found['loss']:.4f}, {found['exact']:.1%} exact"
                best = kept.better(best, {"step": number + 1, **found})
            kept.save(number + 1, best)
            events.note(line)
    return kept.finish(best)


class _Kept:
    """The files of a run in its folder; only the first process writes them."""

    def __init__(
        self, folder: Path, learner: Learner, provenance: dict[str, Any], workers: Workers
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._learner = learner
        self._provenance = provenance
        self._workers = workers
        self._best = folder / "best.safetensors"

    def save(self, step: int, best: Best) -> None:
        """Write a checkpoint."""
        learner = self._learner
        state = {"settings": self._provenance, "best": best, "scaler": learner.scaler.state_dict()}
        if self._workers.first:
            checkpoint.save(self._folder, step, learner.parameters, learner.optimizer, state)
        self._workers.wait()

    def better(self, best: Best, found: dict[str, float]) -> Best:
        """The better one of two validations; the parameters of the new one are kept if it is."""
        if best and (found["exact"], -found["loss"]) <= (best["exact"], -best["loss"]):
            return best
        if self._workers.first:
            checkpoint.write_whole(self._best, self._learner.parameters)
        return found

    def finish(self, best: Best) -> Path:
        """Leave the best parameters, or the last ones, in net and in a file."""
        path, learner = self._folder / checkpoint.TRAINED, self._learner
        if best:
            learner.take(checkpoint.read_tensors(self._best), str(self._best))
        if self._workers.first:
            checkpoint.write_whole(path, learner.parameters)
        self._workers.wait()
        return path

    @contextmanager
    def log(self, done: int) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Writes lines to log.jsonl, whose lines of steps that will come again are removed."""
        if not self._workers.first:
            yield lambda _: None
            return
        path = self._folder / "log.jsonl"
        without(path, [(x.start, x.stop) for x in lines_in(path) if not _step(x) <= done])
        with open_lines(path, append=True) as write:
            yield lambda content: write(json.dumps(content) + "\n")


def _resume(
    folder: Path, learner: Learner, provenance: dict[str, Any], events: Events
) -> tuple[int, Best]:
    """Steps done before, and the best validation of them."""
    saved = checkpoint.latest(folder)
    if saved is None:
        return 0, None
    state = checkpoint.read_state(saved)
    if changed := _changed(state["settings"], provenance):
        raise UsageError(
            f"{folder}: contains a run with other settings: {changed}",
            hint="use the same settings to resume it, or another folder to start over",
        )
    checkpoint.restore(saved, learner.parameters, learner.optimizer)
    learner.scaler.load_state_dict(state["scaler"])
    events.note(f"resuming after step {state['step']} of {learner.steps}")
    return state["step"], state["best"]


def _check_alike(workers: Workers, provenance: dict[str, Any]) -> None:
    """Raise UsageError in a process that would not do what the first one does."""
    if differ := _changed(workers.of_first(provenance), provenance):
        raise UsageError(
            f"process {workers.rank}'s settings differ from those of process 0: {differ}",
            hint="give all processes the same files, and set options such as --dtype explicitly",
        )


def _changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The names whose values differ, with both, for people."""
    return "; ".join(
        f"{name.replace('_', '-')} {before.get(name)}, now {now.get(name)}"
        for name in before | now
        if before.get(name) != now.get(name)
    )


def _memory(settings: Settings) -> dict[str, Any]:
    memory = settings.memory
    plain = {"memory": memory.length, "policy": memory.policy, "banks": memory.banks}
    return plain | memory.compression


def longest_answer(net: Trainable[Any], samples: Sequence[Sample]) -> int:
    """Tokens of the longest right answer to any of them; as many may be generated for each."""
    answers = [answer for sample in samples for answer in sample.answers]
    return max(map(net.answer_tokens, answers), default=1)


class _Logged(TypedDict):
    """Fields that every line of the log has, among others."""

    step: int


def _step(line: StoredLine) -> float:
    """The step of a line of the log; infinity where it is cut off."""
    try:
        return checked(load(line.raw), _Logged)["step"] if line.is_whole else math.inf
    except ValueError:
        return math.inf


@contextmanager
def _own_randomness(net: Trainable[Any]) -> Iterator[None]:
    """Draw random numbers inside without changing the state outside."""
    devices = [net.device] if net.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
