"""Vision-language models are trained by the same command: projector, adapters, resume, refusals."""

import json
import os
import signal

import pytest
import torch
from helpers.commands import SAMPLE, WORDS
from helpers.training import (
    KILL,
    QUICK,
    assert_equal,
    child,
    same,
    source,
    steps_logged,
    tasks,
    write_tasks,
)
from safetensors.torch import load_file

from malmm_cli.checkpoints.state import fill, read_state
from malmm_cli.models import placement, registry
from malmm_cli.models.vlm import random_init
from malmm_cli.models.vlm.defaults import ASK
from malmm_cli.pipeline import features
from malmm_cli.settings import changed
from malmm_cli.train import Recipe, Sample, fit

ARCHITECTURES = ("qwen3_vl", "qwen3_5", "smolvlm", "internvl")
LEARNS = {
    "qwen3_vl": ("model.visual.merger.", "model.visual.deepstack_merger_list."),
    "qwen3_5": ("model.visual.merger.",),
    "smolvlm": ("model.connector.",),
    "internvl": ("model.multi_modal_projector.",),
}
SOME = ("--steps", "4", "--warmup", "0", "--lr", "0.01", *QUICK)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny models by architecture, and one whose numbers are bfloat16."""
    place = tmp_path_factory.mktemp("models")
    for name in ARCHITECTURES:
        random_init.write(place / name, random_init.tiny_config(name), WORDS)
    half = {"dtype": torch.bfloat16}
    random_init.write(place / "half", random_init.tiny_config("smolvlm"), WORDS, **half)
    return place


@pytest.fixture
def data(tmp_path):
    return write_tasks(tmp_path / "tasks.jsonl")


def changes(base, out) -> set[str]:
    """Names of what is another tensor in a trained folder; all else is as it was."""
    before, after = read_state(base), read_state(out)
    assert after.keys() == before.keys()
    assert all(after[name].dtype == value.dtype for name, value in before.items())
    return {name for name, value in before.items() if not torch.equal(after[name], value)}


# from files to a model folder


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_projector_learns_and_nothing_else(run, data, tmp_path, folders, name):
    out = tmp_path / "out"
    done = run("train", data, "-o", out, "--model", folders / name, *SOME)
    assert (done.code, done.out) == (0, ""), done.err
    found = changes(folders / name, out)
    expected = {key for key in read_state(folders / name) if key.startswith(LEARNS[name])}
    assert found == expected
    learnt = load_file(out / "training" / "trained.safetensors")
    assert learnt.keys() == expected
    losses = [line["loss"] for line in steps_logged(out)]
    assert losses[2] + losses[3] < losses[0] + losses[1], "two steps are an epoch"
    asked = run("ask", SAMPLE, "what moves?", "--frames", "4", "--model", out)
    assert asked.code == 0, asked.err


@pytest.mark.parametrize("name", ["qwen3_5", "smolvlm"])
def test_adapters_are_merged_into_the_folder(run, data, tmp_path, folders, name):
    out = tmp_path / "out"
    done = run("train", data, "-o", out, "--model", folders / name, *SOME, "--lora", "2")
    assert done.code == 0, done.err
    assert "kernels" not in done.err
    found = changes(folders / name, out)
    projector = {key for key in found if key.startswith(LEARNS[name])}
    others = found - projector
    assert projector
    assert others
    text = "model.text_model.layers." if name == "smolvlm" else "model.language_model.layers."
    assert all(key.startswith(text) and key.endswith("_proj.weight") for key in others) or (
        name == "qwen3_5" and all("_proj" in key for key in others)
    )
    saved = registry.load(out)
    learning = registry.load(folders / name)
    learning.prepare(positions=120, lora=2, seed=42)
    fill(learning.trainable(), load_file(out / "training" / "trained.safetensors"), "here")
    width, height = saved.frame_size(96, 96)
    pixels = torch.randint(0, 256, (8, height, width, 3)).byte()
    scores = []
    for net in (saved, learning):
        memory = net.start(["what moves?"], changed(ASK, memory=2).memory)
        net.observe(memory, net.encode(pixels, torch.arange(8.0).double()))
        scores.append(net.score(net.context(memory), ["what moves?"], ["a red circle"]))
    torch.testing.assert_close(scores[0], scores[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "memory",
    [
        ("--memory", "0"),
        ("--fill", "keep"),
        ("--policy", "ward", "--mean", "plain"),
        ("--merge", "token"),
        ("--policy", "average"),
        ("--policy", "last"),
    ],
)
def test_every_memory_can_be_trained(run, data, tmp_path, folders, memory):
    options = ("--steps", "1", *QUICK, *memory)
    done = run("train", data, "-o", tmp_path / "out", "--model", folders / "qwen3_vl", *options)
    assert done.code == 0, done.err


def test_half_precision_trains_what_is_float32(run, data, tmp_path, folders):
    out = tmp_path / "out"
    options = ("--dtype", "bfloat16", "--lora", "2", "--validation", data)
    done = run("train", data, "-o", out, "--model", folders / "half", *SOME, *options)
    assert done.code == 0, done.err
    learnt = load_file(out / "training" / "trained.safetensors")
    assert {value.dtype for value in learnt.values()} == {torch.float32}
    assert {value.dtype for value in read_state(out).values()} == {torch.bfloat16}
    assert changes(folders / "half", out)


def test_videos_are_encoded_once_whatever_the_projector(run, data, tmp_path, folders, monkeypatch):
    encode, encoded = features.encode, []
    monkeypatch.setattr(
        "malmm_cli.train.features.encode", lambda *a: encoded.append(a[0]) or encode(*a)
    )
    options = ("--model", folders / "qwen3_vl", "--cache", tmp_path / "kept", *SOME)
    assert run("train", data, "-o", tmp_path / "one", *options).code == 0
    assert len(encoded) == 1, "three questions, one video"
    again = ("--model", tmp_path / "one", "--cache", tmp_path / "kept", *SOME)
    assert run("train", data, "-o", tmp_path / "two", *again).code == 0
    assert len(encoded) == 1, "another projector, the same encoder"
    without = ("--model", folders / "qwen3_vl", "--no-cache", *SOME)
    assert run("train", data, "-o", tmp_path / "three", *without).code == 0
    assert len(encoded) > 4
    assert not (tmp_path / "three" / "training" / "features").exists()
    assert same(read_state(tmp_path / "one"), read_state(tmp_path / "three"))


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("lora", [(), ("--lora", "2")])
def test_after_a_kill_it_ends_the_same(run, data, tmp_path, folders, lora):
    options = ("--steps", "8", "--save-every", "2", "--warmup", "2", "--lr", "0.001", *QUICK)
    command = ("train", data, "--model", folders / "smolvlm", "--validation", data, *options)
    whole, out = tmp_path / "undisturbed", tmp_path / "killed"
    assert run(*command, *lora, "-o", whole).code == 0
    assert child(KILL, *command, *lora, "-o", out).returncode == -signal.SIGKILL
    assert [path.name for path in (out / "training").glob("step-*")] == ["step-00000004"]
    done = run(*command, *lora, "-o", out)
    assert "resuming after step 4 of 8" in done.err
    assert_equal(out, whole)
    other = run(*command, "--lora", "3", "-o", out)
    assert other.code == 2
    assert f"other settings: lora {lora[1] if lora else None}, now 3" in other.err


# how it is learnt


def test_two_answers_are_learnt_from_the_pictures(folders, tmp_path):
    """Two videos of several shapes, one question, through a bank that merges."""
    net = registry.load(folders / "qwen3_vl")
    words = net.net.get_input_embeddings().weight.data
    words[net.texts.end] = words[0]  # the tiny model cannot end an answer otherwise
    encoder, seen = net.encoder(), {}
    torch.manual_seed(0)
    for number, (down, across) in enumerate(((64, 64), (32, 96))):
        pixels = torch.randint(0, 256, (12, down, across, 3)).byte()
        seen[f"v{number}"] = encoder.encode(pixels, torch.arange(12.0).double())
    samples = [Sample(answer, f"v{i}", "which?", (answer,)) for i, answer in enumerate(WORDS[-2:])]
    recipe = Recipe(batch_size=2, lr=0.01, warmup=3)
    drawn, memory = source(samples, seen, recipe), changed(ASK, memory=2)
    net.prepare(lora=4)
    fit(net, drawn, recipe, memory, tmp_path, steps=24, validation=drawn, save_every=24)
    *learnt, last = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert learnt[-1]["loss"] < 0.1 * learnt[0]["loss"]
    assert last["validation"]["exact"] == 1.0


# what goes wrong


@pytest.mark.parametrize(
    ("model", "options", "says", "hint"),
    [
        ("smolvlm", ("--positions", "120"), "--positions 120: not available for training", None),
        ("smolvlm", ("--position-gradient", "all"), "--position-gradient all: not avail", None),
        ("smolvlm", ("--quantize", "4bit"), "--quantize 4bit: not available for training", None),
        ("smolvlm", ("--banks", "both"), "--banks both: not available", "visual"),
        ("smolvlm", ("--lora", "0"), "--lora 0: must be at least 1", None),
        ("smolvlm", ("--lora", "9999"), "--lora 9999: must be at most 1024", None),
        ("tiny", ("--lora", "8"), "--lora 8: not available for training this model", "leave it"),
        ("tiny", ("--fill", "keep"), "--fill keep: not available", "mean"),
    ],
)
def test_bad_options(refused, data, folders, model, options, says, hint):
    model = folders / model if (folders / model).exists() else model
    command = ("train", data, "-o", "out", "--model", model, "-q")
    refused(*command, *options, code=2, says=says, hint=hint)


def test_adapters_need_peft(refused, data, folders, monkeypatch):
    monkeypatch.setattr(placement, "find_spec", lambda name: None)
    command = ("train", data, "-o", "out", "--model", folders / "smolvlm", "-q", "--lora", "8")
    refused(*command, code=2, says="--lora needs peft", hint="pip install 'malmm[lora]'")


def test_more_than_the_model_reads(refused, tmp_path, folders):
    data = write_tasks(tmp_path / "tasks.jsonl", tasks(answer="red circle " * 900)[:1])
    command = ("train", data, "-o", "out", "--model", folders / "smolvlm", "-q", "--frames", "9")
    refused(
        *command, code=1, says="the language model reads 2048", hint="or use a shorter --memory"
    )
