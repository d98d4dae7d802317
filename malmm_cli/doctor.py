"""What this machine has for running models, and what to do about what it lacks."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

from malmm_cli import hub, media
from malmm_cli.errors import CapacityError
from malmm_cli.models.device import pick_device, pick_dtype
from malmm_cli.pipeline import free_memory

__all__ = ["Finding", "examine"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `advice` says what to do where it is not as it should be."""

    what: str
    found: str
    good: bool = True
    advice: str = ""


def examine() -> Iterator[Finding]:
    """Look at everything, quickly and without a network."""
    yield Finding("python", platform.python_version())
    yield Finding("torch", torch.__version__)
    yield Finding("transformers", version("transformers"))
    yield _device()
    for name, found in media.decoders().items():
        advice = "" if found else _DECODER_ADVICE[name]
        yield Finding(name, found or "not here", bool(found), advice)
    for package in ("accelerate", "bitsandbytes"):
        yield _extra(package)
    yield _cache()
    for known in hub.KNOWN.values():
        yield _model(known.name)


_DECODER_ADVICE = {
    "pyav": "pip install av",
    "ffmpeg": "pip install 'malmm[ffmpeg]', for files that PyAV cannot read",
    "decord": "nothing: it is slower and less exact; it has wheels for x86-64 alone",
}


def _device() -> Finding:
    device = pick_device()
    dtype = str(pick_dtype("auto", device)).removeprefix("torch.")
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        count = torch.cuda.device_count()
        more = f" (and {count - 1} more)" if count > 1 else ""
        return Finding("device", f"{name}{more}, {_memory(device)}, {dtype}")
    found = f"{device.type}, {os.cpu_count()} cores, {_memory(device)}, {dtype}"
    if device.type == "mps":
        return Finding("device", found)
    advice = "large models are slow without a GPU; if there is one, install a torch that knows it"
    return Finding("device", found, good=False, advice=advice)


def _memory(device: torch.device) -> str:
    return f"{hub.size_text(free_memory(device))} free"


def _extra(package: str) -> Finding:
    try:
        return Finding(package, version(package))
    except PackageNotFoundError:
        advice = "pip install 'malmm[quantize]', for --quantize"
        return Finding(package, "not here", good=False, advice=advice)


def _cache() -> Finding:
    folder = hub.cache_folder()
    free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
    return Finding("cache", f"{folder}, {hub.size_text(free)} free")


def _model(name: str) -> Finding:
    """Whether a model is here, and in what numbers it would fit."""
    about = hub.describe(name)
    here = "here" if about["here"] else f"to be downloaded ({hub.size_text(about['download'])})"
    free = free_memory(pick_device())
    fits = [dtype for dtype, size in about["memory"].items() if size <= free]
    if fits:
        return Finding(name, f"{here}; fits in {', '.join(fits)}")
    try:
        hub.check_memory(name, about["parameters"], "float16", free)
    except CapacityError as error:
        return Finding(name, f"{here}; does not fit", good=False, advice=error.hint or "")
    return Finding(name, here)
