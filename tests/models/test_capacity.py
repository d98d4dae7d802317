"""How much is done at a time hangs on free memory, the model's sizes and the settings."""

import pytest
import torch
from helpers.memories import remember, start

from malmm_cli.models import capacity, device
from malmm_cli.models.instructblip.defaults import CAPTION
from malmm_cli.settings import Decoding, changed

PROMPTS = ["what moves?"]


@pytest.fixture
def net(load_once, vicuna_folder):
    return load_once(vicuna_folder)


@pytest.fixture
def free(monkeypatch):
    """Sets how many bytes are free."""
    return lambda size: monkeypatch.setattr(capacity, "free_memory", lambda _: size)


def prompts(net, **changes):
    settings = changed(CAPTION, **changes)
    return capacity.prompts_at_once(net, PROMPTS, settings, features=100, chunk=16)


def test_one_is_always_done(net, free):
    free(0)
    assert capacity.frames_at_once(net) == 1
    assert prompts(net) == 1
    assert capacity.answers_at_once(net, 8, PROMPTS, Decoding()) == 1
    assert not capacity.is_kept(net, 2)


def test_never_more_frames_than_keep_a_processor_busy(net, free):
    free(10**12)
    assert capacity.frames_at_once(net) == 16
    assert capacity.is_kept(net, 10**6)


def test_what_takes_more_is_done_less_at_a_time(net, free):
    free(10**9)
    assert prompts(net, memory=10) > prompts(net, memory=20) > prompts(net, memory=50)
    assert prompts(net, memory=200) == prompts(net, memory=100), "slots that cannot fill up"
    assert prompts(net, banks="visual") > prompts(net, banks="query") == prompts(net)
    assert prompts(net, policy="last") > prompts(net, policy="average") > prompts(net, memory=0)
    beams = [capacity.answers_at_once(net, 8, PROMPTS, Decoding(beams=n)) for n in (1, 5)]
    assert beams[0] > beams[1]
    assert capacity.answers_at_once(net, 80, PROMPTS, Decoding()) < beams[1]


def test_query_banks_take_what_is_reckoned(net, free):
    """The banks of one more prompt, measured, are most of what is reckoned, and not more."""
    features = torch.randn(1, 21, net.spec.patches, net.spec.width)

    def held(number):
        memory = start(net, PROMPTS * number, length=20, total=21)
        remember(net, features, memory)
        banks = [bank for bank in memory.queries if bank is not None]
        return sum(x.nbytes for bank in banks for x in (bank.rows, *bank.projections))

    free(10**9)
    settings = changed(CAPTION, memory=20)
    at_once = capacity.prompts_at_once(net, PROMPTS, settings, features=21, chunk=16)
    reckoned = capacity.SHARE * 10**9 / at_once
    assert 0.5 * reckoned < held(2) - held(1) <= reckoned


def test_a_container_s_limit_of_processors(monkeypatch, tmp_path, one_thread):
    torch.set_num_threads(4)
    monkeypatch.setattr(device, "CPU_LIMIT", tmp_path / "cpu.max")
    for limit, threads in (("max 100000", 4), ("600000 100000", 4), ("150000 100000", 2)):
        device.CPU_LIMIT.write_text(limit)
        device.limit_threads()
        assert torch.get_num_threads() == threads
    device.CPU_LIMIT.unlink()
    device.limit_threads()
    assert torch.get_num_threads() == 2


def test_bfloat16_on_a_cpu_that_multiplies_in_it(monkeypatch):
    cpu = torch.device("cpu")
    for known, large in (({"avx512_bf16": True}, torch.bfloat16), ({}, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known, raising=False)
        assert device.pick_dtype("auto", cpu, parameters=4 * 10**9, free=10**12) == large
        assert device.pick_dtype("auto", cpu, parameters=10**6, free=10**12) == torch.float32
        assert device.pick_dtype("float32", cpu, parameters=4 * 10**9) == torch.float32
