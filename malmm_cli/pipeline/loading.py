"""A model's name → the model on its device, in a dtype that fits."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import torch

from malmm_cli import hub
from malmm_cli.errors import CapacityError
from malmm_cli.events import SILENT, Events
from malmm_cli.hub import DEFAULT
from malmm_cli.models import registry
from malmm_cli.models.capacity import frames_at_once, free_memory
from malmm_cli.models.device import language_options, limit_threads, pick_device, pick_dtype
from malmm_cli.models.shortage import ShortageError, is_out_of_memory
from malmm_cli.pipeline.model import Model
from malmm_cli.settings import MemoryOptions

__all__ = ["DEFAULT", "capacity", "load", "must_spread", "no_help"]


# What helps where it is not known what memory ran out for.
_LESS = {
    "beams": "fewer --beams",
    "memory": "a smaller --memory",
    "frames": "fewer --frames",
    "model": "a smaller --model",
}


@contextmanager
def capacity(
    *, without: Collection[str] = (), remedies: Mapping[str, str] = MappingProxyType(_LESS)
) -> Iterator[None]:
    """Tell of too little memory by CapacityError, and name none of the settings `without`.

    `remedies` say what would help, by names of settings, where that is not known better.
    """
    try:
        yield
    except ShortageError as error:
        error.leave_out(without)
        raise
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        shortage = ShortageError("not enough memory", remedies=remedies)
        shortage.leave_out(without)
        raise shortage from error


def no_help(memory: MemoryOptions) -> tuple[str, ...]:
    """The settings that do not change how much is held: with a memory, the number of frames."""
    return ("memory",) if memory.gives_every_frame else ("frames",)


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
    parameters = hub.describe(name)["parameters"]
    spreads, free = spread(parameters), free_memory(where)
    try:
        net = registry.load(
            located.folder, device=where, dtype=number, quantize=quantize, spread=spreads
        )
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise _too_large(name, parameters, dtype, quantize, where, free) from error
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


def _too_large(
    name: str, parameters: int, dtype: str, quantize: str | None, where: torch.device, free: int
) -> CapacityError:
    """The error for a model that cannot be loaded, though its weights may fit in `free` bytes."""
    try:
        hub.check_memory(name, parameters, dtype, free, quantize)
    except CapacityError as error:
        return error
    needed = hub.describe(name)["memory"][quantize or dtype]
    return CapacityError(
        f"not enough memory on {where} to load {name} in {quantize or dtype}: its weights need "
        f"{hub.size_text(needed)}, loading them more, and {hub.size_text(free)} was free",
        hint=hub.fits(name, parameters, needed - 1),
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
