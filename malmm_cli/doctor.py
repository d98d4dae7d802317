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

from malmm_cli import hub, media
from malmm_cli.errors import ModelError, UsageError
from malmm_cli.events import SILENT, Events
from malmm_cli.models.placement import DTYPES, QUANTIZED, dtype_on_cpu, is_cpu
from malmm_cli.processes import machine

__all__ = ["Finding", "examine", "free_memory", "next_step"]


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


def examine(events: Events = SILENT) -> Iterator[Finding]:
    """Look at everything, quickly and without a network.

    Torch is imported only where there may be a GPU; that takes seconds, and is a stage of `events`.
    """
    yield Finding("python", platform.python_version())
    for package in ("torch", "transformers"):
        yield Finding(package, version(package))
    with events.stage("looking for a GPU", ""):
        device = _device()
    yield device
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
    kind, name, dtype = ("cpu", "cpu", dtype_on_cpu()) if is_cpu("auto") else _accelerator()
    free, cores = free_memory(), os.cpu_count() or 1
    numbers = {"memory_free": free, "cores": cores}
    memory = f"{hub.size_text(free)} free, {dtype}"
    if kind == "cuda":
        return Finding("device", f"{name}, {memory}", numbers=numbers)
    found = f"{name}, {cores} cores, {memory}"
    if kind == "mps":
        return Finding("device", found, numbers=numbers)
    advice = (
        "large models are slow without a GPU; if there is one, install a PyTorch that supports it"
    )
    return Finding("device", found, good=False, advice=advice, numbers=numbers)


def _accelerator() -> tuple[str, str, str]:
    """The kind of the fastest device, its name, and the number type used there."""
    import torch

    from malmm_cli.models.device import pick_device, pick_dtype

    device = pick_device()
    dtype = str(pick_dtype("auto", device)).removeprefix("torch.")
    if device.type != "cuda":
        return device.type, device.type, dtype
    more = f" (and {count - 1} more)" if (count := torch.cuda.device_count()) > 1 else ""
    return device.type, f"{torch.cuda.get_device_name(device)}{more}", dtype


def free_memory() -> int:
    """Bytes that are free for a model on the fastest device."""
    if is_cpu("auto"):
        return machine.free_memory()
    from malmm_cli.models import capacity
    from malmm_cli.models.device import pick_device

    return capacity.free_memory(pick_device())


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


def next_step(default: str = hub.DEFAULT) -> Finding:
    """What to run for a first caption of a real video, where `default` is the model by default."""
    free = free_memory()
    bundled = [known.name for known in hub.KNOWN.values() if not known.repository]
    for name in dict.fromkeys((default, *hub.KNOWN)):
        with suppress(ModelError, UsageError):
            model = hub.describe(name, files=False)
            fits = _dtypes(model, free)
            if not fits or name in bundled:
                continue
            if model["here"]:
                choice = "" if name == default else f" --model {name} --dtype {fits[0]}"
                return Finding("next", f"malmm caption VIDEO{choice}")
            if name == default != hub.DEFAULT:
                return Finding("next", hub.pulling(name))
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
    free = free_memory()
    fits = _dtypes(model, free)
    if missing > space:
        found = f"{here}, but only {hub.size_text(space)} of disk space is free"
        return Finding(
            name, found, False, "free up disk space, or set HF_HOME to a folder on a larger disk"
        )
    if fits:
        return Finding(name, f"{here}; fits in {', '.join(fits)}")
    if model["parameters"] is None:
        return Finding(name, here)
    if any(model["memory"][bits] <= free for bits in QUANTIZED):
        advice = hub.fits(name, model["parameters"], free)
        return Finding(name, f"{here}; fits only with --quantize", good=False, advice=advice)
    bits = QUANTIZED[-1]
    advice = f"needs {hub.size_text(model['memory'][bits])} free or more, with --quantize {bits}"
    return Finding(name, f"{here}; does not fit", good=False, advice=advice)


def _dtypes(model: Mapping[str, Any], free: int) -> list[str]:
    """The number types in which a model fits in `free` bytes as it is."""
    sizes = {dtype: model["memory"][dtype] for dtype in DTYPES}
    return [dtype for dtype, size in sizes.items() if size is not None and size <= free]
