"""A model's name → the model on its device, in a dtype that fits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Unpack

import torch

from malmm_cli import hub, media
from malmm_cli.calls import public
from malmm_cli.checkpoints.fingerprint import Fingerprints
from malmm_cli.errors import CapacityError, UsageError
from malmm_cli.events import SILENT, Events
from malmm_cli.models import registry
from malmm_cli.models.base import VideoModel
from malmm_cli.models.capacity import frames_at_once, free_memory
from malmm_cli.models.device import language_options, limit_threads, pick_device, pick_dtype
from malmm_cli.pipeline.feature_cache import FeatureCache
from malmm_cli.settings import Changes, Defaults, Settings

DEFAULT = "vicuna-7b"

__all__ = ["DEFAULT", "Model", "capacity", "check_is_model", "load", "must_spread"]


@dataclass(frozen=True)
class Model:
    """A loaded model, what it is called, and how many frames keep it busy and can be held.

    It is in `folder`. `reader` opens videos for it, `cache` keeps what it makes of their frames.
    """

    net: VideoModel[Any] = field(repr=False)
    name: str
    revision: str | None
    device: str
    dtype: str
    origin: hub.Origin = field(default_factory=hub.Origin)
    reader: media.Reader = field(default=media, repr=False)
    chunk: int = 16
    folder: Path = Path()
    cache: FeatureCache | None = None

    @cached_property
    def fingerprints(self) -> Fingerprints:
        """Names for its weights."""
        return Fingerprints(self.folder, self.net.spec.parts, self.net.spec.heads)

    @property
    def defaults(self) -> Defaults:
        """The default settings of its family."""
        spec = self.net.spec
        return Defaults(spec.defaults, spec.policies, spec.banks, spec.merges, spec.means)

    @public
    def settings(
        self, task: str, settings: Settings | None = None, **changes: Unpack[Changes]
    ) -> Settings:
        """Return settings, or the defaults for "caption" or "ask", with changes.

        Raises UsageError for values that make no sense or that the model's family lacks.
        """
        return self.defaults.settings(task, settings, **changes)


@contextmanager
def capacity() -> Iterator[None]:
    """Tell of too little memory by CapacityError; PyTorch has several ways to say so."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not (known or "allocate memory" in str(error)):
            raise
        raise CapacityError(
            "not enough memory",
            hint="try fewer beams, a smaller --memory or another --model",
        ) from error


@capacity()
def load(
    name: str | Path = DEFAULT,
    *,
    device: str = "auto",
    dtype: str = "auto",
    quantize: str | None = None,
    offline: bool = False,
    events: Events = SILENT,
) -> Model:
    """A model by short name, Hub repository or folder, ready on a device; downloaded if need be.

    `events` gets notes and the progress of a download.
    Raises UsageError for a name, device or dtype that is not there, ModelError for broken files,
    CapacityError for too little disk or memory.
    """
    name = os.fspath(name)
    where = pick_device(device)
    known = hub.describe(name)["parameters"]
    number = pick_dtype(dtype, where, parameters=known, free=free_memory(where))
    dtype = str(number).removeprefix("torch.")
    limit_threads()
    language_options(where, number, quantize=quantize)  # refuses what is wrong before a download

    def spread(parameters: int) -> bool:
        return must_spread(name, parameters, device=str(where), dtype=dtype, quantize=quantize)

    with events.stage("download", "bytes"):
        located = hub.locate(name, offline=offline, check_memory=spread, events=events)
    net = registry.load(
        located.folder,
        device=where,
        dtype=number,
        quantize=quantize,
        spread=spread(hub.describe(name)["parameters"]),
    )
    return Model(
        net=net,
        name=located.name,
        revision=located.revision,
        device=str(where),
        dtype=dtype,
        origin=located.origin,
        chunk=frames_at_once(net),
        folder=located.folder,
    )


def check_is_model(model: object) -> None:
    """Raise UsageError for what is not a model, its name or its folder; None is for the default."""
    if not (isinstance(model, Model | str | os.PathLike) or model is None):
        raise UsageError(
            f"model must be a model's name, its folder or a loaded model, not {model!r}",
            hint="malmm_cli.load(name) loads one",
        )


def must_spread(
    name: str, parameters: int, *, device: str = "auto", dtype: str = "auto", quantize: str | None
) -> bool:
    """Whether the language model must be spread over all devices, since it does not fit on one.

    Raises CapacityError, which says how much is missing and what would fit, if that does not help;
    UsageError for a device or dtype that is not there.
    """
    where = pick_device(device)
    free = free_memory(where)
    number = pick_dtype(dtype, where, parameters=parameters, free=free)
    dtype = str(number).removeprefix("torch.")
    try:
        hub.check_memory(name, parameters, dtype, free, quantize)
    except CapacityError:
        if where.type != "cuda" or find_spec("accelerate") is None:
            raise
        gpus = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
        everything = sum(map(free_memory, [*gpus, torch.device("cpu")]))
        hub.check_memory(name, parameters, dtype, everything, quantize)
        return True
    return False
