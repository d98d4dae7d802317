"""What README's numbers come from. Each figure is measured in a process of its own.

`step` times one step of the memory Q-Former at true sizes: in the form that is used, in the naive
form that projects the whole bank anew, and beside transformers' Q-Former, which has no memory.
`model` builds a published model at its true size with random weights, stores it in the published
form, and loads and runs it.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from malmm_cli import hub, models
from malmm_cli.errors import CapacityError, MalmmError
from malmm_cli.generate import generate
from malmm_cli.memory import Memory, PlainBank
from malmm_cli.models import scratch
from malmm_cli.models.device import pick_device, pick_dtype
from malmm_cli.models.qformer import QFormer
from malmm_cli.output import check_new_folder, new_folder
from malmm_cli.room import free_memory
from malmm_cli.settings import Decoding

__all__ = ["machine", "measure_model", "measure_step", "model", "step"]

# Published InstructBLIP: 257 patch tokens of width 1408, 32 query tokens; 16 tokens of question.
_PATCHES, _WIDTH, _QUERIES, _WORDS = 257, 1408, 32, 16

# Frames encoded at a time when a whole model is measured.
_CHUNK = 16


def step(lengths: Sequence[int], *, threads: int = 2, repeats: int = 9) -> Iterator[dict[str, Any]]:
    """Rows of seconds per frame and peak memory: without a memory first, then for each length."""
    how = (str(threads), str(repeats))
    yield _in_child("none", "0", *how)
    for length in lengths:
        for form in ("slots", "naive"):
            yield _in_child(form, str(length), *how)


def model(name: str, folder: Path, *, frames: int, device: str, dtype: str) -> dict[str, Any]:
    """Write a random model of a published size into folder, unless it is there, and measure it.

    Raises CapacityError before that where this machine has too little memory for it.
    """
    where, there = pick_device(device), (folder / "config.json").exists()
    parameters, free = hub.KNOWN[name].parameters or 0, free_memory(where)
    number = pick_dtype(dtype, where, parameters=parameters, free=free)
    dtype = str(number).removeprefix("torch.")
    try:
        # it is built in the machine's own memory, whatever the device
        for room in (free,) if there else (free, hub.machine_memory()):
            hub.check_memory(name, parameters, dtype, room)
    except CapacityError as error:
        raise CapacityError(
            error.message,
            hint="measure a smaller model, with --dtype bfloat16, or on a larger machine",
        ) from error
    if not there:
        check_new_folder(folder)
        with new_folder(folder) as place:
            scratch.write(place, scratch.published_config(name), ["word"], dtype=number)
    return _in_child("model", str(folder), str(frames), device, dtype)


def measure_model(folder: str, frames: int, device: str, dtype: str) -> dict[str, Any]:
    """Seconds to load and of each stage, and peak memory, in this process."""
    where = pick_device(device)
    spent = {}
    start = time.perf_counter()
    net = models.load(folder, device=where, dtype=pick_dtype(dtype, where))
    spent["load"] = time.perf_counter() - start
    prompts = ["what does the video describe?"]
    memory = net.start(prompts, length=20, total=frames)
    spent |= {"encode": 0.0, "remember": 0.0}
    for first in range(0, frames, _CHUNK):
        shape = (min(_CHUNK, frames - first), net.image_size, net.image_size, 3)
        start = time.perf_counter()
        features = net.encode(torch.randint(0, 256, shape, dtype=torch.uint8))
        _wait(where)
        middle = time.perf_counter()
        tokens, memory = net.remember(features[None], memory)
        _wait(where)
        spent["encode"] += middle - start
        spent["remember"] += time.perf_counter() - middle
    start = time.perf_counter()
    generate(net, tokens, prompts, Decoding(max_new_tokens=20))
    _wait(where)
    spent["generate"] = time.perf_counter() - start
    on_gpu = where.type == "cuda"
    return {
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "frames": frames,
        "device": torch.cuda.get_device_name(where) if on_gpu else str(where),
        "dtype": str(net.dtype).removeprefix("torch."),
        "seconds": {stage: round(seconds, 2) for stage, seconds in spent.items()},
        "peak_mib": _peak_mib(),
        "peak_device_mib": torch.cuda.max_memory_allocated(where) // 2**20 if on_gpu else 0,
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import transformers

    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def measure_step(form: str, length: int, *, threads: int, repeats: int) -> dict[str, Any]:
    """Median seconds of a step with a full bank, in this process, and its peak memory in MiB.

    `ratio` is to transformers' step, the two timed in turn, pair by pair, so that it holds when the
    machine's speed drifts.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    run = _transformers_step() if form == "none" else _our_step(form, length)
    run()
    peak = _peak_mib()
    other = _transformers_step()
    other()
    pairs = [(_seconds(run), _seconds(other)) for _ in range(repeats)]
    spent = [ours for ours, _ in pairs]
    return {
        "form": form,
        "memory": length,
        "seconds": round(statistics.median(spent), 4),
        "fastest": round(min(spent), 4),
        "slowest": round(max(spent), 4),
        "ratio": round(statistics.median(ours / theirs for ours, theirs in pairs), 2),
        "peak_mib": peak,
    }


def _seconds(run: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _our_step(form: str, length: int) -> Callable[[], Tensor]:
    import transformers

    net = QFormer(transformers.InstructBlipQFormerConfig(vocab_size=30523)).eval()
    queries = torch.randn(1, _QUERIES, net.config.hidden_size)
    ids = torch.randint(5, 30000, (1, _WORDS))
    with torch.no_grad():
        memory = net.start(queries, ids, torch.ones_like(ids), length=length)

    @torch.no_grad()
    def run() -> Tensor:
        return net.step(torch.randn(1, _PATCHES, _WIDTH), memory, _QUERIES)

    if form == "naive":
        _fill_plain(memory, length, net.config.hidden_size)
    else:
        for _ in range(length):
            run()
    return run


def _fill_plain(memory: Memory, length: int, width: int) -> None:
    """Banks in the naive form, full from the start: streaming into them would take minutes."""
    memory.visual = _full_bank(length, _PATCHES, _WIDTH)
    memory.queries = [_full_bank(length, _QUERIES + _WORDS, width) for _ in memory.queries]


def _full_bank(length: int, positions: int, width: int) -> PlainBank:
    entries = torch.randn(1, length, positions, width)
    return PlainBank(length, entries=entries, counts=torch.ones(1, length, positions))


def _transformers_step() -> Callable[[], Tensor]:
    import transformers

    config = transformers.InstructBlipQFormerConfig(vocab_size=30523)
    net: Any = transformers.InstructBlipQFormerModel(config)
    net.eval()
    queries = torch.randn(1, _QUERIES, config.hidden_size)
    ids = torch.randint(5, 30000, (1, _WORDS))

    @torch.no_grad()
    def run() -> Tensor:
        out: Tensor = net(
            input_ids=ids,
            query_embeds=queries,
            encoder_hidden_states=torch.randn(1, _PATCHES, _WIDTH),
        ).last_hidden_state
        return out

    return run


def _in_child(*arguments: str) -> dict[str, Any]:
    """What measuring in a process of its own gave: peak memory is then that of one thing alone."""
    command = [sys.executable, "-m", "malmm_cli.bench", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise MalmmError(f"measuring {' '.join(arguments)} failed: {last}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def _peak_mib() -> int:
    """The most memory this process has held, in MiB."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak // (1024 if sys.platform == "linux" else 1024 * 1024))


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["model", _folder, _frames, _device, _dtype]:
            _row = measure_model(_folder, int(_frames), _device, _dtype)
        case [_form, _length, _threads, _repeats]:
            _row = measure_step(_form, int(_length), threads=int(_threads), repeats=int(_repeats))
    sys.stdout.write(json.dumps(_row) + "\n")
