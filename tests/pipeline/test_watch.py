"""The library behind the commands: what a user of Python gets, and what memory does to a run."""

import dataclasses

import pytest
import torch
from helpers.commands import SAMPLE
from helpers.events import Recorded

import malmm_cli
from malmm_cli import media
from malmm_cli.errors import CapacityError, MediaError, UsageError
from malmm_cli.memory.bank import MemoryBank
from malmm_cli.models import registry
from malmm_cli.models.instructblip.defaults import CAPTION
from malmm_cli.pipeline import loading, watch
from malmm_cli.settings import changed

FEW = {"frames": 6, "beams": 2, "max_new_tokens": 6}


@pytest.fixture
def model(monkeypatch, load_once, one_thread, t5_folder):
    """A model whose words depend on what it sees."""
    monkeypatch.setattr(registry, "load", load_once)
    return malmm_cli.load(str(t5_folder))


def comparable(result):
    return dataclasses.replace(result, seconds={})


def test_the_public_names():
    assert sorted(malmm_cli.__all__) == malmm_cli.__all__
    for name in malmm_cli.__all__:
        assert getattr(malmm_cli, name).__name__.split(".")[-1] == name
    with pytest.raises(AttributeError, match="no attribute 'capture'"):
        malmm_cli.capture  # noqa: B018


def test_caption_and_ask(model):
    result = malmm_cli.caption(SAMPLE, model=model, **FEW)
    assert isinstance(result, malmm_cli.Result)
    assert (result.task, result.question, result.frames) == ("caption", None, 6)
    assert result.segments == (malmm_cli.Segment(0.0, 60.0, result.text),)
    answers = malmm_cli.ask(SAMPLE, ["what moves?", "where?"], model=model, **FEW)
    assert [answer.question for answer in answers] == ["what moves?", "where?"]
    (alone,) = malmm_cli.ask(str(SAMPLE), "what moves?", model=model, **FEW)
    assert comparable(alone) == comparable(dataclasses.replace(answers[0], video=str(SAMPLE)))


def test_changes_are_settings_or_decoding(model):
    settings = changed(CAPTION, **FEW, memory=3)
    one = malmm_cli.caption(SAMPLE, model=model, settings=settings)
    assert comparable(one) == comparable(malmm_cli.caption(SAMPLE, model=model, memory=3, **FEW))
    with pytest.raises(UsageError, match="has no setting 'colour'"):
        malmm_cli.caption(SAMPLE, model=model, colour="red")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"frames": 0}, "frames=0"),
        ({"frames": 3, "fps": 1}, "exclude each other"),
        ({"start": -1.0}, "start=-1"),
        ({"decoder": "vlc"}, "unknown decoder"),
        ({"policy": "lifo"}, "unknown policy"),
        ({"merge": "frme"}, "unknown merge"),
        ({"mean": "median"}, "unknown mean"),
        ({"memory_seed": 2**64}, "must be between 0 and 18446744073709551615"),
    ],
)
def test_wrong_values(model, changes, says):
    with pytest.raises(UsageError, match=says):
        malmm_cli.caption(SAMPLE, model=model, **changes)


def test_wrong_videos(model):
    with pytest.raises(malmm_cli.MalmmError) as caught:
        malmm_cli.caption("nope.mp4", model=model)
    assert isinstance(caught.value, MediaError)
    assert caught.value.kind == "Missing"


def test_progress_is_told_chunk_by_chunk(model):
    model = dataclasses.replace(model, chunk=4)
    events = Recorded()
    malmm_cli.caption(SAMPLE, model=model, events=events, **FEW)
    assert events.stages == [f"{SAMPLE}, ", "reading, frames", "answering, texts"]
    assert events.counts == [(4, 6), (6, 6), (1, 1)]


def test_chunks_do_not_show(model):
    whole = malmm_cli.caption(SAMPLE, model=model, memory=2, **FEW)
    model = dataclasses.replace(model, chunk=1)
    assert comparable(malmm_cli.caption(SAMPLE, model=model, memory=2, **FEW)) == comparable(whole)


def test_seconds_are_told_by_stage(model):
    seconds = malmm_cli.caption(SAMPLE, model=model, **FEW).seconds
    assert list(seconds) == ["open", "decode", "encode", "remember", "generate"]
    assert all(spent > 0 for spent in seconds.values())


def last_tokens(model, **changes):
    settings = changed(CAPTION, **{"frames": 6, **changes})
    (*_, seen) = watch.watch(SAMPLE, [CAPTION.prompt], model, settings)
    return model.net.context(seen.memory).tokens


def test_a_memory_longer_than_the_video_takes_no_room(model, monkeypatch):
    lengths = set()
    allocate = MemoryBank._allocate

    def note(bank, *rows):
        lengths.add(bank.length)
        allocate(bank, *rows)

    exact = last_tokens(model, memory=6)
    monkeypatch.setattr(MemoryBank, "_allocate", note)
    assert torch.equal(last_tokens(model, memory=10**12), exact)
    assert lengths == {6}


def test_each_policy_sees_something_else(model):
    runs = [
        {"memory": 2},
        {"memory": 6},
        {"memory": 2, "policy": "fifo"},
        {"policy": "average"},
        {"policy": "last"},
        {"memory": 2, "policy": "random"},
        {"memory": 2, "policy": "uniform"},
        {"memory": 2, "merge": "frame"},
        {"memory": 2, "mean": "plain"},
        {"memory": 2, "banks": "visual"},
        {"memory": 2, "banks": "query"},
    ]
    tokens = [last_tokens(model, **run) for run in runs]
    assert {tuple(t.shape) for t in tokens} == {(1, 8, 96)}
    for number, one in enumerate(tokens):
        for other in tokens[:number]:
            assert not torch.allclose(one, other, atol=1e-4)


def test_policy_last_equals_banks_none(model):
    assert torch.equal(last_tokens(model, policy="last"), last_tokens(model, banks="none"))


def test_without_memory_the_language_model_sees_every_frame(model):
    tokens = last_tokens(model, memory=0)
    assert tokens.shape == (1, 6 * 8, 96)
    newest = last_tokens(model, policy="last")
    torch.testing.assert_close(tokens[:, -8:], newest)


def test_a_video_without_a_picture_that_can_be_decoded(model, monkeypatch):
    monkeypatch.setattr(media, "read", lambda *_: iter([]))
    with pytest.raises(MediaError, match="no frame could be decoded"):
        malmm_cli.caption(SAMPLE, model=model)


def test_the_language_model_is_spread_where_one_gpu_is_too_small(monkeypatch):
    """By the sizes alone: there is no GPU here."""

    def spread(parameters, quantize=None):
        return loading.must_spread(
            "vicuna-7b", parameters, device="cuda", dtype="float16", quantize=quantize
        )

    monkeypatch.setattr(loading, "pick_device", loading.torch.device)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    room = {"cuda": 10 * 10**9, "cpu": 5 * 10**9}
    monkeypatch.setattr(loading, "free_memory", lambda device: room[device.type])
    assert not spread(4 * 10**9)
    assert spread(10 * 10**9)
    assert not spread(10 * 10**9, "4bit")
    with pytest.raises(CapacityError, match=r"5\.0 GB too little"):
        spread(15 * 10**9)
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(CapacityError, match=r"10\.0 GB too little"):
        spread(10 * 10**9)
