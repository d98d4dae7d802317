"""A worker: loads a model once, then answers job after job.

The same function serves local processes and Ray's actors.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from malmm_cli.batch.job import Job, Outcome, as_malmm_error, failed
from malmm_cli.errors import CapacityError, MalmmError, MediaError
from malmm_cli.files.fingerprint import identity, link_identity
from malmm_cli.media.sandbox import Limits, Sandbox
from malmm_cli.types import Result

if TYPE_CHECKING:
    from malmm_cli.pipeline.feature_cache import FeatureCache
    from malmm_cli.pipeline.model import Model

__all__ = ["Setup", "start"]


@dataclass(frozen=True)
class Setup:
    """What a worker needs to know: which model, where, and what a video may ask for.

    `workers` share one machine; `timeout` is for one job, in seconds; `full_hash` reads whole files
    to tell them apart; `cache` keeps features of frames.
    """

    model: str
    device: str = "auto"
    dtype: str = "auto"
    quantize: str | None = None
    workers: int = 1
    timeout: float = math.inf
    full_hash: bool = False
    cache: FeatureCache | None = None
    limits: Limits = field(default_factory=Limits)


def start(setup: Setup, number: int) -> Worker:
    """The worker of this number, counted from 0, with its model; the device is one of its own."""
    import torch

    from malmm_cli.pipeline import loading

    device, gpus = setup.device, torch.cuda.device_count()
    if device == "auto" and gpus:
        device = f"cuda:{number % gpus}"
    if setup.workers > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // setup.workers))
    model = loading.load(
        setup.model, device=device, dtype=setup.dtype, quantize=setup.quantize, offline=True
    )
    return Worker(setup, model, Sandbox(setup.limits))


class Worker:
    """A model, a guarded decoder, and what is done with them."""

    def __init__(self, setup: Setup, model: Model, sandbox: Sandbox) -> None:
        self.description = f"{model.name} on {model.device}, {model.dtype}"
        self._setup, self._sandbox = setup, sandbox
        self._model = replace(model, reader=sandbox, cache=setup.cache)

    def __call__(self, job: Job) -> Outcome:
        """The results of a job or, where they cannot be had, the reason."""
        begun = time.monotonic()
        self._sandbox.deadline = begun + self._setup.timeout
        known = None
        try:
            before = _identity(job.video)
            known = _identity(job.video, full=True) if self._setup.full_hash else before
            results = _results(job, self._model)
            if _identity(job.video) != before:
                message = f"{job.video}: the file was changed while it was read"
                raise MediaError(message, kind="Changed")
            outcome = Outcome(tuple(results), known)
        except Exception as error:
            outcome = replace(failed(job, _explained(job, error)), identity=known)
        if isinstance(outcome.error, CapacityError):
            _release()
        return replace(outcome, seconds=time.monotonic() - begun, memory=_memory())


def _explained(job: Job, error: Exception) -> MalmmError:
    """The error, with times called as the task does that has its own."""
    fault = as_malmm_error(job.video, error)
    if job.tasks[0].start is not None:
        fault.message = fault.message.replace("--from", "'from'")
    return fault


def _results(job: Job, model: Model) -> Sequence[Result]:
    from malmm_cli.pipeline.answer import ask, caption
    from malmm_cli.pipeline.memory_header import is_memory_file, unfixed

    how: Any = {"settings": job.settings}
    if is_memory_file(job.video):  # among videos, for which alone the rest is meant
        how = unfixed(job.settings)
    questions = [task.question for task in job.tasks if task.question is not None]
    if questions:
        return ask(job.video, questions, model=model, **how)
    return [caption(job.video, model=model, **how)]


def _identity(video: str, *, full: bool = False) -> str | None:
    """None if the file cannot be read: decoding reports a better error."""
    try:
        return link_identity(video) or identity(video, full=full)
    except (OSError, ValueError):
        return None


def _release() -> None:
    """Leave the memory of a device to others that share it."""
    from malmm_cli.models.shortage import release

    release()


def _memory() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)
