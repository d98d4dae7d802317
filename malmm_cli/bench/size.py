"""A published model at its true size with random weights: stored, loaded and run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from malmm_cli import hub
from malmm_cli.bench.child import in_child, peak_device_mib, peak_mib, wait
from malmm_cli.errors import CapacityError
from malmm_cli.files.atomic import new_folder
from malmm_cli.formats import check_new_folder
from malmm_cli.models import registry
from malmm_cli.models.capacity import frames_at_once, free_memory
from malmm_cli.models.device import pick_device, pick_dtype
from malmm_cli.processes import machine
from malmm_cli.settings import Decoding, MemoryOptions

__all__ = ["measure_model", "model"]

# Those of the questions that are asked: spelt, a question would be three times as long.
WORDS = "question what does the person number do short answer video describe".split()


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
    random_init, forms = (registry.module(registry.REFERENCE, n) for n in ("random_init", "forms"))
    where, there = pick_device(device), (folder / "config.json").exists()
    config, free = random_init.published_config(name, text_layers), free_memory(where)
    known = hub.KNOWN[name].parameters
    parameters = known if known and text_layers is None else forms.parameters(config)
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
    where = pick_device(device)
    spent = {}
    start = time.perf_counter()
    net: Any = registry.load(folder, device=where, dtype=pick_dtype(dtype, where))
    spent["load"] = time.perf_counter() - start
    prompts = ["what does the video describe?"]
    memory = net.start(prompts, MemoryOptions(length=20), frames)
    spent |= {"encode": 0.0, "remember": 0.0}
    chunk = frames_at_once(net)
    width, height = net.frame_size(1, 1)
    for first in range(0, frames, chunk):
        number = min(chunk, frames - first)
        seconds = torch.arange(first, first + number, dtype=torch.float64)
        shape = (number, height, width, 3)
        start = time.perf_counter()
        features = net.encode(torch.randint(0, 256, shape, dtype=torch.uint8), seconds)
        wait(where)
        middle = time.perf_counter()
        net.observe(memory, features)
        wait(where)
        spent["encode"] += middle - start
        spent["remember"] += time.perf_counter() - middle
    start = time.perf_counter()
    context = net.context(memory)
    wait(where)
    spent["remember"] += time.perf_counter() - start
    start = time.perf_counter()
    net.generate(context, prompts, Decoding(max_new_tokens=20))
    wait(where)
    spent["generate"] = time.perf_counter() - start
    return {
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "frames": frames,
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else str(where),
        "dtype": str(net.dtype).removeprefix("torch."),
        "seconds": {stage: round(seconds, 2) for stage, seconds in spent.items()},
        "peak_mib": peak_mib(),
        "peak_device_mib": peak_device_mib(where),
    }
