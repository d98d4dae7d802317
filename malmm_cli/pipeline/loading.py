"""A model's name → the model on its device, in a dtype that fits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch

from malmm_cli import hub
from malmm_cli.errors import CapacityError
from malmm_cli.events import SILENT, Events
from malmm_cli.hub import DEFAULT
from malmm_cli.models import registry
from malmm_cli.models.capacity import frames_at_once, free_memory
from malmm_cli.models.device import language_options, limit_threads, pick_device, pick_dtype
from malmm_cli.pipeline.model import Model

__all__ = ["DEFAULT", "capacity", "load", "must_spread"]


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
