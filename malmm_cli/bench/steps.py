"""One step of the memory Q-Former at true sizes, beside other forms of it.

`slots` is the form that is used; `naive` projects the whole bank anew at every frame; `none` is
transformers' Q-Former, which has no memory.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from malmm_cli.bench.child import in_child, peak_mib
from malmm_cli.memory.bank import PlainBank
from malmm_cli.models.instructblip.memory import Memory
from malmm_cli.models.instructblip.qformer import QFormer, no_projections

__all__ = ["measure_step", "plain_step", "step"]

# Frames handed over at a time; their outputs are read once.
_FRAMES = 8

# Published InstructBLIP: 257 patch tokens of width 1408, 32 query tokens; 16 tokens of question.
_PATCHES, _WIDTH, _QUERIES, _WORDS = 257, 1408, 32, 16


def step(lengths: Sequence[int], *, threads: int = 2, repeats: int = 9) -> Iterator[dict[str, Any]]:
    """Rows of seconds per frame and peak memory: without a memory first, then for each length."""
    how = {"threads": threads, "repeats": repeats}
    yield in_child("step", form="none", length=0, **how)
    for length in lengths:
        for form in ("slots", "naive"):
            yield in_child("step", form=form, length=length, **how)


def measure_step(form: str, length: int, *, threads: int, repeats: int) -> dict[str, Any]:
    """Median seconds per frame with a full bank, in this process, and its peak memory in MiB.

    `ratio` is to transformers' step, the two timed in turn, pair by pair, so that it holds when the
    machine's speed drifts.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    run = _transformers_step() if form == "none" else _our_step(form, length)
    frames = _FRAMES if form == "slots" else 1
    run()
    peak = peak_mib()
    other = _transformers_step()
    other()
    pairs = [(_seconds(run) / frames, _seconds(other)) for _ in range(repeats)]
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

    def feature() -> Tensor:
        return torch.randn(1, _PATCHES, _WIDTH)

    @torch.no_grad()
    def naive() -> Tensor:
        return plain_step(net, feature(), memory, _QUERIES)

    @torch.no_grad()
    def slots() -> Tensor:
        for _ in range(_FRAMES - 1):
            net.append(feature(), memory, _QUERIES)
        return net.read(feature(), memory, _QUERIES)

    if form == "naive":
        _fill_plain(memory, length, net.config.hidden_size)
        return naive
    for _ in range(-(-length // _FRAMES)):
        slots()
    return slots


def plain_step(net: QFormer, feature: Tensor, memory: Memory, queries: int) -> Tensor:
    """Read a frame (V, P, C) and store it in plain banks, in one pass as the reference does."""
    seen = net.read(feature, memory, queries)
    for bank in memory.banks_in_use:
        bank.append(no_projections)
    return seen


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
