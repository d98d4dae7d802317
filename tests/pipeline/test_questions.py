"""Many questions about one video share its pictures; words come out as they are found."""

import sys
from dataclasses import replace
from itertools import count

import pytest
import torch
from helpers.commands import SAMPLE
from helpers.events import Recorded

import malmm_cli
from malmm_cli import media
from malmm_cli.models import registry
from malmm_cli.models.instructblip.defaults import CAPTION
from malmm_cli.models.instructblip.model import InstructBlip
from malmm_cli.pipeline import answer, watch
from malmm_cli.pipeline.feature_cache import FeatureCache
from malmm_cli.pipeline.features import open_features, replayed
from malmm_cli.settings import changed

FEW = {"frames": 6, "memory": 3, "beams": 2, "max_new_tokens": 6}
QUESTIONS = ["what moves?", "where?", "which colour is the circle?", "what shape is red?", "what?"]


@pytest.fixture
def model(monkeypatch, load_once, one_thread, t5_folder):
    monkeypatch.setattr(registry, "load", load_once)
    return replace(malmm_cli.load(str(t5_folder)), chunk=4)


@pytest.fixture
def calls(monkeypatch):
    """How many frames were encoded and how many prompts were started with, call by call."""
    net, told = InstructBlip, []
    encode, start = net.encode_frames, net.start
    monkeypatch.setattr(net, "encode_frames", lambda net, x: told.append(len(x)) or encode(net, x))
    monkeypatch.setattr(
        net, "start", lambda net, p, *o: told.append(f"{len(p)} prompts") or start(net, p, *o)
    )
    return told


def texts(results):
    return [result.text for result in results]


def few_at_once(monkeypatch, number):
    monkeypatch.setattr(watch, "prompts_at_once", lambda *_, **__: number)
    monkeypatch.setattr(answer, "answers_at_once", lambda *_: number)


def test_answers_are_the_same_in_parts_and_one_by_one(model, calls, monkeypatch):
    alone = [malmm_cli.ask(SAMPLE, [q], model=model, **FEW)[0] for q in QUESTIONS]
    del calls[:]
    together = malmm_cli.ask(SAMPLE, QUESTIONS, model=model, **FEW)
    assert calls == ["5 prompts", 4, 2]
    few_at_once(monkeypatch, 2)
    del calls[:]
    events = Recorded()
    parts = malmm_cli.ask(SAMPLE, QUESTIONS, model=model, events=events, **FEW)
    assert calls == ["2 prompts", 4, 2, "2 prompts", "1 prompts"]
    read, answered = events.counts[:6], events.counts[6:]
    assert read == [(4, 18), (6, 18), (10, 18), (12, 18), (16, 18), (18, 18)]
    assert answered == [(2, 5), (4, 5), (5, 5)]
    assert len(set(texts(alone))) > 1
    assert texts(parts) == texts(together) == texts(alone)
    assert [result.candidates for result in parts] == [result.candidates for result in alone]
    assert list(parts[0].seconds) == ["open", "decode", "encode", "remember", "generate"]


def test_parts_come_from_the_cache_if_there_is_one(model, calls, monkeypatch, tmp_path):
    few_at_once(monkeypatch, 3)
    cached = replace(model, cache=FeatureCache(tmp_path))
    whole = malmm_cli.ask(SAMPLE, QUESTIONS, model=cached, **FEW)
    assert calls == ["3 prompts", 4, 2, "2 prompts"]
    assert texts(whole) == texts(malmm_cli.ask(SAMPLE, QUESTIONS, model=model, **FEW))


def test_what_cannot_be_held_is_decoded_again(model, calls, monkeypatch):
    few_at_once(monkeypatch, 3)
    monkeypatch.setattr(watch, "is_kept", lambda *_: False)
    # every look at the clock finds it a second later
    monkeypatch.setattr("malmm_cli.models.device.time.perf_counter", count().__next__)
    found = malmm_cli.ask(SAMPLE, QUESTIONS, model=model, **FEW)
    assert len(found) == 5
    assert calls == ["3 prompts", 4, 2, "2 prompts", 4, 2]
    assert found[0].seconds["encode"] >= 4, "of both parts"


def test_what_is_drawn_for_a_question_hangs_on_no_other(model):
    draw = {**FEW, "beams": 1, "sample": True, "seed": 3}
    answers = malmm_cli.ask(SAMPLE, QUESTIONS, model=model, **draw)
    alone = [malmm_cli.ask(SAMPLE, [q], model=model, **draw)[0] for q in QUESTIONS]
    assert texts(answers) == texts(alone)


def test_decoding_goes_on_while_frames_are_encoded(model, monkeypatch):
    read, encode, decoded, seen = media.read, InstructBlip.encode_frames, [], []

    def counted(*arguments):
        for frame in read(*arguments):
            decoded.append(frame)
            yield frame

    def wait(net, frames):
        until = len(decoded) + 1
        for _ in range(500):
            if len(decoded) >= min(until, 12):
                break
            torch.randn(200, 200) @ torch.randn(200, 200)
            import time

            time.sleep(0.002)
        seen.append(len(decoded))
        return encode(net, frames)

    monkeypatch.setattr(media, "read", counted)
    monkeypatch.setattr(InstructBlip, "encode_frames", wait)
    malmm_cli.caption(SAMPLE, model=model, **{**FEW, "frames": 12})
    assert seen[0] > 4
    assert len(seen) == 3


def test_errors_of_the_decoder_get_through_and_leave_no_thread(model, monkeypatch):
    import threading

    read = media.read

    def broken(*arguments):
        yield next(read(*arguments))
        raise media.MediaError("broken", kind="Broken")

    monkeypatch.setattr(media, "read", broken)
    with pytest.raises(media.MediaError, match="broken"):
        malmm_cli.caption(SAMPLE, model=model, **FEW)
    settings = changed(CAPTION, **{**FEW, "frames": 40})
    monkeypatch.setattr(media, "read", read)
    watching = watch.watch(SAMPLE, ["what?"], model, settings)
    next(watching)
    assert [thread for thread in threading.enumerate() if thread.name == "prefetch"]
    watching.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_features_are_replayed(model):
    settings = changed(CAPTION, **FEW)
    features = replayed(open_features(SAMPLE, model, settings))
    first = [chunk.seconds.tolist() for chunk in features.chunks]
    assert [chunk.seconds.tolist() for chunk in features.chunks] == first
    features.close()


@pytest.mark.parametrize("folder", ["t5_folder", "vicuna_folder"])
def test_words_are_told_as_they_come(folder, request, model):
    model = malmm_cli.load(str(request.getfixturevalue(folder)))
    events = Recorded()
    few = {**FEW, "beams": 1, "max_new_tokens": 20}
    result = malmm_cli.caption(SAMPLE, model=model, events=events, **few)
    pieces = events.pieces
    assert "".join(pieces) == result.text
    assert len(pieces) > 1
    assert all(piece.endswith(" ") for piece in pieces[:-1])
    assert result.text == malmm_cli.caption(SAMPLE, model=model, **few).text


def test_words_on_a_terminal(malmm, clip, monkeypatch):
    told, emit = [], sys.modules.get("malmm_cli.cli.running").emit
    for module in ("running", "terminal"):
        name = f"malmm_cli.cli.{module}.emit"
        monkeypatch.setattr(name, lambda text: told.append(text) or emit(text))
    run = ("caption", clip, "--model", "tiny", "--frames", "3", "--max-new-tokens", "12", "-q")
    plain = malmm(*run, "--beams", "1").out
    assert told == [plain]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for options, live in (
        (["--beams", "1"], True),
        (["--beams", "2"], False),
        (["--beams", "1", "--json"], False),
        (["--beams", "1", "-o", clip.with_name("x.txt"), "--overwrite"], False),
    ):
        del told[:]
        done = malmm(*run, *options)
        assert done.code == 0
        assert (len(told) > 1) == live, options
        if live:
            assert (done.out, told[-1]) == (plain, "\n")
