"""What README's numbers come from. Each figure is measured in a process of its own.

`step` times one step of the memory Q-Former at true sizes: in the form that is used, in the naive
form that projects the whole bank anew, and beside transformers' Q-Former, which has no memory.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from malmm_cli.errors import MalmmError
from malmm_cli.memory import Memory, PlainBank
from malmm_cli.models.qformer import QFormer

__all__ = ["FORMS", "machine", "measure_step", "step"]

FORMS = ("slots", "naive", "none")

# Published InstructBLIP: 257 patch tokens of width 1408, 32 query tokens; 16 tokens of question.
_PATCHES, _WIDTH, _QUERIES, _WORDS = 257, 1408, 32, 16


def step(lengths: Sequence[int], *, threads: int = 2, repeats: int = 9) -> Iterator[dict[str, Any]]:
    """Rows of seconds per frame and peak memory: without a memory first, then for each length."""
    base = _in_child("none", 0, threads, repeats)
    yield {**base, "ratio": 1.0}
    for length in lengths:
        for form in ("slots", "naive"):
            row = _in_child(form, length, threads, repeats)
            yield {**row, "ratio": round(row["seconds"] / base["seconds"], 2)}


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import transformers

    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def measure_step(form: str, length: int, *, threads: int, repeats: int) -> dict[str, Any]:
    """Median seconds of a step with a full bank, in this process, and its peak memory in MiB."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    run = _transformers_step() if form == "none" else _our_step(form, length)
    run()
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        spent.append(time.perf_counter() - start)
    return {
        "form": form,
        "memory": length,
        "seconds": round(statistics.median(spent), 4),
        "fastest": round(min(spent), 4),
        "slowest": round(max(spent), 4),
        "peak_mib": _peak_mib(),
    }


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


def _in_child(form: str, length: int, threads: int, repeats: int) -> dict[str, Any]:
    arguments = [form, str(length), str(threads), str(repeats)]
    command = [sys.executable, "-m", "malmm_cli.bench", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MalmmError(f"measuring {form} at M = {length} failed: {last}")
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
    _form, _length, _threads, _repeats = sys.argv[1:]
    _row = measure_step(_form, int(_length), threads=int(_threads), repeats=int(_repeats))
    sys.stdout.write(json.dumps(_row) + "\n")
