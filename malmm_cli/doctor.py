"""What this machine has to run models, and how to get what is missing."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from malmm_cli import hub, media
from malmm_cli.errors import CapacityError, ModelError
from malmm_cli.models.capacity import free_memory
from malmm_cli.models.device import pick_device, pick_dtype

__all__ = ["Finding", "examine", "next_step"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `advice` says how to fix a problem.

    `numbers` are those that `found` has in words, sizes in bytes.
    """

    what: str
    found: str
    good: bool = True
    advice: str = ""
    numbers: Mapping[str, int] = field(default_factory=dict)


def examine() -> Iterator[Finding]:
    """Look at everything, quickly and without a network."""
    yield Finding("python", platform.python_version())
    yield Finding("torch", torch.__version__)
    yield Finding("transformers", version("transformers"))
    yield _device()
    for name, found in media.decoders().items():
        advice = "" if found else _DECODER_ADVICE[name]
        yield Finding(name, found or "not installed", bool(found), advice)
    for package in ("accelerate", "bitsandbytes"):
        yield _extra(package)
    yield _cache()
    for known in hub.KNOWN.values():
        yield _model(known.name)


_DECODER_ADVICE = {
    "pyav": "pip install av",
    "nvdec": "not needed: without an NVIDIA GPU, PyAV decodes on the CPU",
    "ffmpeg": "pip install 'malmm[ffmpeg]', for files that PyAV cannot read",
    "decord": "not needed: it is slower and less exact, and has wheels only for x86-64",
}


def _device() -> Finding:
    device = pick_device()
    dtype = str(pick_dtype("auto", device)).removeprefix("torch.")
    free = free_memory(device)
    memory = f"{hub.size_text(free)} free"
    numbers = {"memory_free": free, "cores": os.cpu_count() or 1}
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        count = torch.cuda.device_count()
        more = f" (and {count - 1} more)" if count > 1 else ""
        return Finding("device", f"{name}{more}, {memory}, {dtype}", numbers=numbers)
    found = f"{device.type}, {os.cpu_count()} cores, {memory}, {dtype}"
    if device.type == "mps":
        return Finding("device", found, numbers=numbers)
    advice = (
        "large models are slow without a GPU; if there is one, install a PyTorch that supports it"
    )
    return Finding("device", found, good=False, advice=advice, numbers=numbers)


def _extra(package: str) -> Finding:
    try:
        return Finding(package, version(package))
    except PackageNotFoundError:
        advice = "pip install 'malmm[quantize]', for --quantize"
        return Finding(package, "not installed", good=False, advice=advice)


def _cache() -> Finding:
    folder, parent = hub.cache_folder(), hub.nearest_folder()
    elsewhere = "set HF_HOME to another folder to download models"
    if not parent.is_dir():
        return Finding("cache", f"{folder}, but {parent} is a file", False, elsewhere)
    free = shutil.disk_usage(parent).free
    found, numbers = f"{folder}, {hub.size_text(free)} free", {"disk_free": free}
    if not os.access(parent, os.W_OK):
        return Finding("cache", f"{found}, but {parent} is not writable", False, elsewhere, numbers)
    smallest = min(known.download for known in hub.KNOWN.values() if known.repository)
    if free < smallest:
        advice = (
            f"free up disk space, or {elsewhere}: models take {hub.size_text(smallest)} or more"
        )
        return Finding("cache", found, False, advice, numbers)
    return Finding("cache", found, numbers=numbers)


def next_step() -> Finding:
    """What to run for a first caption of a real video."""
    free = free_memory(pick_device())
    for known in filter(lambda known: known.repository, hub.KNOWN.values()):
        with suppress(ModelError):
            sizes = hub.describe(known.name, files=False)
            fits = [dtype for dtype, size in sizes["memory"].items() if size <= free]
            if sizes["here"] and fits:
                return Finding(
                    "next", f"malmm caption VIDEO --model {known.name} --dtype {fits[0]}"
                )
    return Finding("next", hub.recommended(free))


def _model(name: str) -> Finding:
    """Whether a model is here or there is space for it, and in what numbers it would fit."""
    try:
        model = hub.describe(name, disk=True)
    except ModelError as error:
        return Finding(name, error.message, good=False, advice=error.hint or "")
    missing = 0 if model["here"] else model["download"] - model["arrived"]
    memory = {f"memory_{dtype}": size for dtype, size in model["memory"].items()}
    numbers = {"missing": missing, "size": model["size"], **memory}
    return replace(_fit(name, model, missing), numbers=numbers)


def _fit(name: str, model: Mapping[str, Any], missing: int) -> Finding:
    here = "here" if model["here"] else f"not downloaded ({hub.size_text(missing)})"
    space = shutil.disk_usage(hub.nearest_folder()).free
    free = free_memory(pick_device())
    fits = [dtype for dtype, size in model["memory"].items() if size <= free]
    if missing > space:
        found = f"{here}, but only {hub.size_text(space)} of disk space is free"
        return Finding(
            name, found, False, "free up disk space, or set HF_HOME to a folder on a larger disk"
        )
    if fits:
        return Finding(name, f"{here}; fits in {', '.join(fits)}")
    try:
        hub.check_memory(name, model["parameters"], "float16", free)
    except CapacityError as error:
        return Finding(name, f"{here}; does not fit", good=False, advice=error.hint or "")
    return Finding(name, here)
