"""Memory that runs out in the middle of a video: the same results, or one line that says why."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.commands import FAST, SAMPLE

import malmm_cli
from malmm_cli.errors import CapacityError
from malmm_cli.evaluate import predict
from malmm_cli.models import registry
from malmm_cli.models.instructblip.model import InstructBlip
from malmm_cli.models.vlm import prefix
from malmm_cli.pipeline import answer, watch
from malmm_cli.pipeline.features import encode

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
FEW = {"frames": 12, "memory": 3, "beams": 1, "max_new_tokens": 6}
QUESTIONS = ["what moves?", "where?", "which colour is the circle?", "what shape is red?", "what?"]


@pytest.fixture(params=["instructblip", "qwen3_vl", "qwen3_5", "smolvlm"])
def model(request, monkeypatch, load_once, one_thread):
    """A model of each kind, eight frames at a time."""
    if request.param == "instructblip":
        monkeypatch.setattr(registry, "load", load_once)
        return replace(malmm_cli.load(str(request.getfixturevalue("t5_folder"))), chunk=8)
    return replace(request.getfixturevalue("vlm")(request.param), chunk=8)


@pytest.fixture
def cramped(monkeypatch):
    """Lets a method fail where what it is given is larger than `most`, from the nth call on."""

    def make(owner, name, size, most, begin=1):
        right, tried, done = getattr(owner, name), [], []

        def checked(self, *given, **how):
            tried.append(size(*given))
            if tried[-1] > most and len(tried) >= begin:
                raise FULL
            found = right(self, *given, **how)
            done.append(tried[-1])
            return found

        monkeypatch.setattr(owner, name, checked)
        return tried, done

    return make


def comparable(results):
    return [replace(result, seconds={}) for result in results]


def asked(model, questions=QUESTIONS, **changes):
    return comparable(malmm_cli.ask(SAMPLE, questions, model=model, **{**FEW, **changes}))


def frames(pixels, seconds):
    return len(pixels)


def features(model):
    settings = model.settings("caption", **FEW)
    return [chunk.as_dict() for chunk in encode(SAMPLE, model, settings).chunks]


def equal(one, other):
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
        for a, b in zip(one, other, strict=True)
    )


def test_fewer_frames_are_encoded_as_from_the_start(model, cramped):
    due = features(replace(model, chunk=2)), asked(replace(model, chunk=2))
    tried, done = cramped(type(model.net), "encode", frames, most=2)
    assert equal(features(model), due[0])
    assert tried == [8, *[2] * 6]
    assert sum(done) == 12
    assert asked(model) == due[1]


def test_memory_may_run_out_later(model, cramped):
    due = features(model)
    tried, done = cramped(type(model.net), "encode", frames, most=2, begin=2)
    found = features(model)
    least = model.net.spec.frames_per_feature
    assert tried == [8, 4, *[least] * (4 // least)], "the last chunk has four frames"
    assert sum(done) == 12
    for name in due[0]:
        one, other = (torch.cat([chunk[name] for chunk in part]) for part in (due, found))
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_smaller_step_is_tried_once(model, cramped):
    tried, _ = cramped(type(model.net), "encode", frames, most=0)
    with pytest.raises(CapacityError, match="to encode 2 frames at a time") as caught:
        asked(model)
    assert tried == [8, 2]
    assert caught.value.hint == 'try dtype="bfloat16" or a smaller model'


def test_fewer_questions_are_answered_as_from_the_start(model, cramped, monkeypatch):
    monkeypatch.setattr(answer, "answers_at_once", lambda *_: 1)
    due = asked(model)
    monkeypatch.setattr(answer, "answers_at_once", lambda *_: 5)
    tried, done = cramped(type(model.net), "generate", lambda _, prompts, *__: len(prompts), most=1)
    assert asked(model) == due
    assert (tried, done) == ([5, 1, 1, 1, 1, 1], [1] * 5)


def test_no_answer_fits(model, cramped, monkeypatch):
    monkeypatch.setattr(answer, "answers_at_once", lambda *_: 5)
    tried, _ = cramped(type(model.net), "generate", lambda _, prompts, *__: len(prompts), most=0)
    with pytest.raises(CapacityError, match="to answer 1 prompt at a time after") as caught:
        asked(model, beams=2)
    assert tried == [5, 1]
    assert "with 2 beams" in caught.value.message
    assert caught.value.hint.startswith("try fewer beams, max_new_tokens below 6, ")
    assert "frames" not in caught.value.hint


def test_fewer_prompts_are_remembered_as_from_the_start(model, cramped, monkeypatch):
    monkeypatch.setattr(watch, "prompts_at_once", lambda *_, **__: 2)
    due = asked(model)
    monkeypatch.setattr(watch, "prompts_at_once", lambda *_, **__: 8)
    started = []
    right = type(model.net).start
    monkeypatch.setattr(
        type(model.net), "start", lambda net, p, *o: started.append(len(p)) or right(net, p, *o)
    )
    observe, seen = type(model.net).observe, []

    def full(net, memory, features):
        seen.append(started[-1])
        if started[-1] > 2 and len(seen) == 2:
            raise FULL
        observe(net, memory, features)

    monkeypatch.setattr(type(model.net), "observe", full)
    questions = QUESTIONS * 2
    assert [r.text for r in asked(model, questions)] == [r.text for r in due] * 2
    assert started == [8, 2, 2, 2, 2, 2]
    assert seen == [8, 8, *[2] * 10], "each memory sees every chunk once"


def test_no_prompt_fits(model, cramped):
    cramped(type(model.net), "observe", lambda *_: 1, most=0)
    says = "to remember the video for 1 prompt at a time in banks of 3"
    with pytest.raises(CapacityError, match=says) as caught:
        asked(model)
    assert caught.value.hint.startswith("try a smaller memory, ")
    with pytest.raises(CapacityError) as caught:
        asked(model, QUESTIONS[:1], memory=0, frames=2)
    assert caught.value.hint.startswith("try fewer frames, ")
    with pytest.raises(CapacityError):
        list(malmm_cli.watch(SAMPLE, QUESTIONS, model, **FEW))
    with pytest.raises(CapacityError) as caught:
        malmm_cli.remember(SAMPLE, model, frames=12, memory=3)
    assert caught.value.hint == "try a smaller memory or a smaller model"


def test_fewer_choices_are_weighed_as_from_the_start(model, cramped, monkeypatch):
    settings, choices = model.settings("ask", **FEW), ["red", "a blue circle", "no", "yes"]
    _, context = watch.watch_whole(SAMPLE, QUESTIONS[:1], model, settings)
    monkeypatch.setattr(predict, "VISUAL", 1)
    due = predict._weigh(model, context, QUESTIONS[0], choices)
    monkeypatch.setattr(predict, "VISUAL", 2**20)
    tried, _ = cramped(type(model.net), "score", lambda _, prompts, *__: len(prompts), most=1)
    assert predict._weigh(model, context, QUESTIONS[0], choices) == due
    assert tried == [4, 1, 1, 1, 1]


# --- the prefix of a vision-language model


@pytest.fixture
def last_layer(monkeypatch):
    """Lets the last layer fail where tokens are more than fit: the others have read them."""

    def make(model, most):
        language = model.net.adapter.language(model.net.net)
        layer, lengths = language.layers[-1], []
        right = layer.forward

        def checked(hidden, *given, **how):
            lengths.append(hidden.shape[1])
            if lengths[-1] > most:
                raise FULL
            return right(hidden, *given, **how)

        monkeypatch.setattr(layer, "forward", checked)
        return lengths

    return make


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen3_5", "smolvlm", "internvl"])
def test_a_prefix_in_smaller_pieces_is_as_from_the_start(
    name, vlm, last_layer, monkeypatch, one_thread
):
    model = vlm(name)
    few = {**FEW, "frames": 6}
    with monkeypatch.context() as patch:
        patch.setattr(prefix, "CHUNK", 16)
        due = comparable(malmm_cli.ask(SAMPLE, QUESTIONS, model=model, **few))
    monkeypatch.setattr(prefix, "CHUNK", 64)
    lengths = last_layer(model, 63)
    assert comparable(malmm_cli.ask(SAMPLE, QUESTIONS, model=model, **few)) == due
    assert lengths[:3] == [64, 16, 16]
    assert lengths.count(64) == 1


def test_no_piece_of_a_prefix_fits(vlm, last_layer, tmp_path):
    model = vlm("smolvlm")
    file = tmp_path / "clip.memory"
    malmm_cli.remember(SAMPLE, model, frames=6, memory=3).write(file)
    lengths = last_layer(model, 0)
    says = r"to read the video's \d+ tokens, \d+ tokens at a time"
    with pytest.raises(CapacityError, match=says) as caught:
        malmm_cli.ask(SAMPLE, QUESTIONS, model=model, **FEW)
    assert len(lengths) == 2
    assert caught.value.hint == 'try a smaller memory, dtype="bfloat16" or a smaller model'
    with pytest.raises(CapacityError, match=says) as caught:
        malmm_cli.ask(file, QUESTIONS, model=model)
    assert caught.value.hint == 'try dtype="bfloat16" or a smaller model', "a file's is fixed"


# --- on the command line


def test_a_command_ends_with_one_line(refused, cramped):
    cramped(InstructBlip, "encode", frames, most=0)
    refused(
        *("caption", SAMPLE, *FAST),
        code=1,
        says="not enough memory on cpu in float32 to encode 1 frame at a time",
        hint="try --dtype bfloat16 or a smaller --model",
    )


def test_a_model_that_cannot_be_loaded(refused, monkeypatch):
    def load(*_, **__):
        raise FULL

    monkeypatch.setattr(registry, "load", load)
    said = refused(
        *("caption", SAMPLE, *FAST, "--dtype", "float32"),
        code=1,
        says="not enough memory on cpu to load tiny in float32: its weights need ",
        hint="this would fit: --dtype bfloat16",
    )
    assert "was free" in said


def test_a_batch_goes_on_with_the_next_video(malmm, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        shutil.copy(SAMPLE, name)
    right, tried = InstructBlip.encode, []

    def encode(net, pixels, seconds):
        tried.append(len(pixels))
        if len(tried) in (2, 3, 4):  # all of the second video, and the first chunk of the third
            raise FULL
        return right(net, pixels, seconds)

    monkeypatch.setattr(InstructBlip, "encode", encode)
    done = malmm("batch", "a.mp4", "b.mp4", "c.mp4", "-o", "out.jsonl", *FAST)
    assert done.code == 1
    assert tried == [4, 4, 1, 4, 1, 1, 1, 1]
    items = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    results = {Path(item["video"]).name: item for item in items if "video" in item}
    assert results["b.mp4"]["error"]["kind"] == "CapacityError"
    assert results["a.mp4"]["text"] == results["c.mp4"]["text"]
    assert "b.mp4: not enough memory on cpu in float32 to encode 1 frame at a time" in done.err
