"""The captured step: what must hold for it, and what happens where it cannot be; on the CPU.

A graph itself takes a GPU; `Recorded` stands for one: it does the step again with a feature that
it copies to where the first one was.
"""

import pytest
import torch
from helpers.memories import remember, start

from malmm_cli.models.instructblip import cuda_graph

PROMPTS = ["what is seen?", "is there a star?"]


class Recorded:
    """As `cuda_graph.Graph`, without one."""

    def __init__(self, step, feature, memory):
        self.feature, self.step, self.memory = feature.clone(), step, memory

    def __call__(self, feature):
        self.feature.copy_(feature)
        self.step(self.feature, self.memory)


class Refused(Recorded):
    """Breaks off half-way through the step, as a capture may."""

    def __init__(self, step, feature, memory):
        memory.visual.read(feature, lambda rows: [rows] * len(memory.visual.projections))
        raise RuntimeError("operation not permitted when stream is capturing")


class Forgetful(Recorded):
    """Always reads the first feature again."""

    def __call__(self, feature):
        self.step(self.feature, self.memory)


class Empty(Recorded):
    """Did its step while it was captured, and does nothing afterwards."""

    def __init__(self, step, feature, memory):
        step(feature, memory)

    def __call__(self, feature):
        pass


@pytest.fixture
def tiny(load_once, vicuna_folder):
    return load_once(vicuna_folder)


@pytest.fixture
def features(tiny):
    torch.manual_seed(0)
    return tiny.encode_frames(
        torch.randint(0, 256, (12, tiny.image_size, tiny.image_size, 3)).byte()
    )[None]


def watch(net, features, **options):
    memory = start(net, PROMPTS, **{"length": 3, **options})
    tokens, memory = remember(net, features, memory)
    return tokens, memory


def on_the_cpu(monkeypatch, graph):
    monkeypatch.setattr(cuda_graph, "_pays", lambda feature, memory: memory.is_full)
    monkeypatch.setattr(cuda_graph, "Graph", graph)


@pytest.mark.parametrize("policy", ["mbc", "fifo", "random", "uniform"])
@pytest.mark.parametrize("banks", ["both", "visual", "query"])
def test_a_full_memory_stays_where_it_is(tiny, features, policy, banks):
    """A graph writes to addresses; whatever a step replaced would be lost on it."""

    def places(memory):
        return [
            tensor.data_ptr()
            for bank in memory.banks_in_use
            for tensor in (bank.rows, bank.counts, bank.order, bank.similarity, *bank.projections)
        ]

    memory = start(tiny, PROMPTS, length=3, policy=policy, banks=banks)
    remember(tiny, features[:, :2], memory)
    assert not memory.is_full
    remember(tiny, features[:, 2:5], memory)
    assert memory.is_full
    before = places(memory)
    remember(tiny, features[:, 5:], memory)
    assert places(memory) == before


@pytest.mark.parametrize("policy", ["mbc", "fifo", "random", "uniform"])
@pytest.mark.parametrize("banks", ["both", "visual", "query"])
def test_a_replayed_step_is_the_step(tiny, features, policy, banks, monkeypatch):
    due, _ = watch(tiny, features, policy=policy, banks=banks)
    on_the_cpu(monkeypatch, Recorded)
    tokens, memory = watch(tiny, features, policy=policy, banks=banks)
    assert isinstance(memory.replay, Recorded)
    assert torch.equal(tokens, due)
    assert memory.frames == 12


@pytest.mark.parametrize("graph", [Refused, Forgetful, Empty])
def test_a_graph_that_fails_or_errs_is_not_used(tiny, features, graph, monkeypatch):
    due, _ = watch(tiny, features)
    on_the_cpu(monkeypatch, graph)
    tokens, memory = watch(tiny, features)
    assert memory.replay is False
    assert torch.equal(tokens, due)


def test_a_copy_has_no_graph_of_another_memory(tiny, features, monkeypatch):
    due, _ = watch(tiny, features)
    on_the_cpu(monkeypatch, Recorded)
    _, memory = watch(tiny, features[:, :9])
    copies = memory.copy(), memory.plain()
    assert [copy.replay for copy in copies] == [None, None]
    remember(tiny, features[:, :2], memory)
    for copy in copies:
        tokens, _ = remember(tiny, features[:, 9:], copy)
        torch.testing.assert_close(tokens, due, atol=1e-5, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="takes a GPU")
def test_a_graph_on_a_gpu_is_the_step(tiny, features):
    due, _ = watch(tiny, features.repeat(1, 9, 1, 1), total=108)
    for name in (f"cuda:{number}" for number in range(torch.cuda.device_count())):
        tiny.move_to(name)
        try:
            tokens, memory = watch(tiny, features.to(name).repeat(1, 9, 1, 1), total=108)
            assert isinstance(memory.replay, cuda_graph.Graph)
            torch.testing.assert_close(tokens.cpu(), due, atol=1e-3, rtol=1e-3)
        finally:
            tiny.move_to("cpu")
