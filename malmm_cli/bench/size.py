"""A published model at its true size with random weights: stored, loaded and run."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import torch

from malmm_cli import hub
from malmm_cli.bench.child import in_child, peak_device_mib, peak_mib
from malmm_cli.bench.growth import Noise
from malmm_cli.errors import CapacityError
from malmm_cli.files.atomic import new_folder
from malmm_cli.formats import check_new_folder
from malmm_cli.models import registry
from malmm_cli.models.capacity import free_memory
from malmm_cli.models.device import Clock, pick_device, pick_dtype
from malmm_cli.pipeline import watch
from malmm_cli.pipeline.loading import load
from malmm_cli.processes import machine

__all__ = ["measure_model", "model"]

# Those of the questions that are asked, and those around slots in the prompts of some families:
# spelt, a question would be three times as long.
WORDS = "question what does the person number do short answer video describe from seconds".split()


def model(
    name: str,
    folder: Path,
    *,
    frames: int,
    device: str,
    dtype: str,
    text_layers: int | None = None,
) -> dict[str, Any]:
    """Write a random model of a published size into folder, unless it is there, and measure it.

    `text_layers`: its language model has so many. Raises CapacityError before that where this
    machine has too little memory for it.
    """
    family = registry.FAMILIES[str(hub.KNOWN[name].model_type)]
    random_init, published = (registry.module(family, n) for n in ("random_init", "published"))
    where, there = pick_device(device), (folder / "config.json").exists()
    config, free = published.published_config(name, text_layers), free_memory(where)
    known = hub.KNOWN[name].parameters
    parameters = known if known and text_layers is None else published.parameters(config)
    number = pick_dtype(dtype, where, parameters=parameters, free=free)
    dtype = str(number).removeprefix("torch.")
    try:
        # it is built in the machine's own memory, whatever the device
        for memory in (free,) if there else (free, machine.free_memory()):
            hub.check_memory(name, parameters, dtype, memory)
    except CapacityError as error:
        raise CapacityError(
            error.message,
            hint="measure a smaller model, with --dtype bfloat16, or on a larger machine",
        ) from error
    if not there:
        check_new_folder(folder)
        with new_folder(folder) as new:
            random_init.write(new, config, WORDS, dtype=number)
    return in_child("model", folder=str(folder), frames=frames, device=device, dtype=dtype)


def measure_model(folder: str, frames: int, device: str, dtype: str) -> dict[str, Any]:
    """Seconds to load and of each stage, and peak memory, in this process."""
    start = time.perf_counter()
    model = load(folder, device=device, dtype=dtype, offline=True)
    spent = {"load": time.perf_counter() - start}
    model, net = dataclasses.replace(model, reader=Noise(frames)), model.net
    prompts = ["what does the video describe?"]
    settings = model.settings("caption", frames=frames, max_new_tokens=20)
    seen, context = watch.watch_whole("noise", prompts, model, settings)
    clock = Clock(net.answers_on, seen.seconds)
    with clock("generate"):
        net.generate(context, prompts, settings.decoding)
    spent |= {stage: clock.seconds[stage] for stage in ("encode", "remember", "generate")}
    cuda = net.device.type == "cuda"
    return {
        "parameters": hub.describe(folder)["parameters"],
        "frames": frames,
        "device": torch.cuda.get_device_name(net.device) if cuda else model.device,
        "dtype": model.dtype,
        "seconds": {stage: round(seconds, 2) for stage, seconds in spent.items()},
        "peak_mib": peak_mib(),
        "peak_device_mib": peak_device_mib(net.device),
    }
