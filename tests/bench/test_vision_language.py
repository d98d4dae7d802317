"""`malmm bench` with vision-language models: tiny ones, with random weights."""

import json
from functools import cache
from importlib import import_module
from math import isfinite
from types import SimpleNamespace

import pytest
import torch

from malmm_cli.bench import size
from malmm_cli.bench.bound import work_of
from malmm_cli.bench.marks import Marks
from malmm_cli.models.vlm import forms, published, random_init
from malmm_cli.models.vlm.load import ADAPTERS
from malmm_cli.settings import Decoding, MemoryOptions

GREEDY = Decoding(max_new_tokens=4, beams=1, repetition_penalty=1.0)
FEW = ("--frames", "4", "--memory", "3", "--max-new-tokens", "2", "--json")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of tiny models by architecture."""

    @cache
    def written(name):
        folder = tmp_path_factory.mktemp("vlm") / name
        random_init.write(folder, random_init.tiny_config(name), size.WORDS)
        return folder

    return written


def measured(malmm, clip, folder, *options):
    done = malmm("bench", "video", clip, "--model", folder, *options)
    assert done.code == 0, done.err
    return json.loads(done.out)


@pytest.mark.parametrize("name", ["qwen3_vl", "smolvlm"])
def test_a_video_in_every_form(malmm, here, clip, folders, name):
    rows = {row["form"]: row for row in measured(malmm, clip, folders(name), *FEW)["videos"]}
    assert list(rows) == ["encoder-step", "decode", "malmm", "bound", "naive", "transformers"]
    assert rows.pop("naive")["skipped"].startswith("this kind of model projects nothing")
    for row in rows.values():
        assert row["frames"] == 4
        assert row["peak_mib"] > 0
        assert row["hour"] == round(60 * row["before"] / 4, 2)
    ours, theirs, bound = (rows[form] for form in ("malmm", "transformers", "bound"))
    alone = rows["encoder-step"]["seconds"]["encode"]
    assert ours["encoder_ratio"] == round(alone / ours["before"], 3)
    assert bound["encoder_rate"] > 0
    assert bound["tera_a_second"] > 0
    assert 0 < bound["encoder_share"] < 10
    for row in (ours, theirs):
        assert 0 < row["before"] < row["first"]
        assert 0 < row["read"] < row["seconds"]["generate"]
    assert theirs["first_ratio"] == round(theirs["first"] / ours["first"], 3)
    assert theirs["peak_ratio"] == round(theirs["peak_mib"] / ours["peak_mib"], 3)


def test_many_questions(malmm, here, clip, folders):
    many = ("--questions", "3", "--calls", "2", "--calls", "5")
    found = measured(malmm, clip, folders("smolvlm"), *FEW, "--form", "decode", *many)
    asked = found["questions"]
    assert [(row["form"], row["questions"]) for row in asked] == [
        ("malmm", 1),
        ("malmm", 3),
        ("memory file", 3),
    ]
    for row in asked[:2]:
        assert row["reading"] == round(row["before"] + row["read"], 3)
    assert asked[0]["ratio"] == asked[0]["reading_ratio"] == 1
    assert all(isfinite(row["ratio"]) and row["ratio"] > 0 for row in asked)
    two, five = found["calls"]
    assert (two["questions"], two["measured"]) == (2, 3)
    assert five["apart"] == pytest.approx(2.5 * two["apart"], abs=0.01), "scaled"
    assert two["ratio"] == pytest.approx(two["apart"] / two["together"], abs=0.1)


def test_what_is_printed(malmm, here, clip, folders):
    how = ("--model", folders("smolvlm"), *FEW[:-1], "--questions", "2", "--calls", "2")
    done = malmm("bench", "video", clip, *how)
    assert done.code == 0, done.err
    starts = [
        "bound: the encoder alone reaches ",
        "malmm: an hour at one frame a second takes ",
        "malmm: first token after ",
        "transformers: first token after ",
        "transformers: peak memory ",
    ]
    for start in starts:
        assert sum(line.startswith(start) for line in done.out.splitlines()) == 1, start
    assert "with reading" in done.out
    assert "as many: 3 runs measured, their mean times the questions" in done.err
    assert max(map(len, done.out.splitlines()[1:])) <= 80


def test_what_transformers_cannot_read_is_told(malmm, here, clip, folders):
    how = ("--model", folders("qwen3_vl"), "--form", "transformers", "--frames", "60")
    done = malmm("bench", "video", clip, *how)
    assert (done.code, done.out) == (0, "")
    assert "transformers not measured: 25 slots of 144 tokens" in done.err


@pytest.mark.parametrize("name", ADAPTERS)
def test_contenders_agree(load_once, folders, one_thread, name):
    """With a slot for every frame malmm says what transformers says of the same pixels."""
    folder = folders(name)
    net = load_once(folder)
    width, height = net.frame_size(96, 64)
    chance = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (5, height, width, 3), generator=chance, dtype=torch.uint8)
    seconds, prompts = torch.arange(5, dtype=torch.float64), ["what does the person do?"]
    given = (folder, frames, seconds, prompts, GREEDY)
    theirs = forms.published_answers(net, forms.published_model(net), *given)
    per = net.spec.frames_per_feature
    whole = torch.arange(net.spec.features(5) * per).clamp(max=4)
    memory = net.start(prompts, MemoryOptions(length=5, banks="visual", merge="frame"))
    net.observe(memory, net.encode(frames[whole], seconds[whole]))
    assert net.generate(net.context(memory), prompts, GREEDY) == [theirs]
    assert theirs[0]


def test_the_arithmetic_of_an_encoder(load_once, folders):
    """By the formula of a vision transformer, and its projector's."""
    net = load_once(folders("smolvlm"))
    frame = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    vision = net.adapter.config.vision_config
    width, patches = vision.hidden_size, (64 // 8) ** 2
    linear = 4 * width**2 + 2 * width * vision.intermediate_size
    layer = 2 * patches * linear + 4 * patches**2 * width
    cut = 2 * patches * width * 3 * 8**2
    projected = 2 * patches * width * net.spec.width
    work = vision.num_hidden_layers * layer + cut + projected
    found = work_of(lambda: net.encode(frame, torch.zeros(1, dtype=torch.float64)))
    assert found == pytest.approx(work, rel=0.01)


def test_marks():
    """Reading is what takes several tokens; only the first token is noted."""
    part, head = torch.nn.Identity(), torch.nn.Identity()
    with Marks(part, head, torch.device("cpu")) as marks:
        assert marks.began is marks.first is None
        part(torch.zeros(1, 1, 2))
        began, read = marks.began, marks.read
        part(torch.zeros(1, 3, 2))
        head(torch.zeros(1))
        first = marks.first
        head(torch.zeros(1))
    assert read == 0 < marks.read
    assert marks.began == began < first == marks.first
    read_before_head = marks.read
    part(torch.zeros(1, 3, 2))
    assert marks.first == first, "what is called later is not watched"
    assert marks.read == read_before_head


@pytest.fixture
def small(monkeypatch, here):
    """Published models that are tiny, and measured in this process."""

    def config(name, text_layers=None):
        assert name == "qwen3.5-0.8b"
        found = random_init.tiny_config("qwen3_5")
        found.vision_config.depth = text_layers or 4
        return found

    monkeypatch.setattr(published, "published_config", config)
    monkeypatch.setattr(size, "in_child", lambda _, **given: size.measure_model(**given))


def test_a_model_of_published_size(malmm, small, tmp_path):
    folder = tmp_path / "new"
    run = ("bench", "model", "qwen3.5-0.8b", folder, "--frames", "3", "--device", "cpu", "--json")
    for _ in range(2):  # the second time it is there
        done = malmm(*run, "--dtype", "bfloat16", "--text-layers", "3")
        assert done.code == 0, done.err
        found = json.loads(done.out)
        assert (found["model"], found["frames"], found["dtype"]) == ("qwen3.5-0.8b", 3, "bfloat16")
        assert list(found["seconds"]) == ["load", "encode", "remember", "generate"]
        assert found["peak_mib"] > 0
    config = random_init.tiny_config("qwen3_5")
    config.vision_config.depth = 3
    config.text_config.vocab_size = json.loads((folder / "config.json").read_text())["text_config"][
        "vocab_size"
    ]
    assert found["parameters"] == published.parameters(config)


def test_parameters_are_those_of_the_published_model():
    from malmm_cli.hub import KNOWN

    known = KNOWN["smolvlm2-256m"]
    config = published.published_config(known.name)
    assert published.parameters(config) == known.parameters
    assert published.parameters(published.published_config(known.name, 1)) < known.parameters


def test_memory_against_frames(monkeypatch, load_once, one_thread, folders):
    growth = import_module("malmm_cli.bench.growth")  # the package has a call of that name
    from malmm_cli.models import registry

    monkeypatch.setattr(registry, "load", load_once)
    monkeypatch.setattr(growth, "_limit_memory", lambda _: 5 * 10**9)
    monkeypatch.setattr(growth, "in_child", lambda _, **given: growth.measure_growth(**given))
    rows = list(growth.growth(str(folders("smolvlm")), memory=3, frames=[8, 200]))
    banked = [row for row in rows if row["memory"]]
    assert [row["frames"] for row in banked] == [8, 200]
    assert banked[0]["tokens"] < banked[1]["tokens"] * 1.2
    assert banked[0]["ratio"] == 1
    assert banked[1]["ratio"] == round(banked[1]["peak_mib"] / banked[0]["peak_mib"], 3)
    failed = rows[-1]
    assert (failed["memory"], failed["ratio"]) == (0, None)
    assert "so at most " in failed["failed"]


@pytest.mark.parametrize(
    ("command", "says", "hint"),
    [
        (("model", "qwen3-vl-3b", "new"), "unknown model 'qwen3-vl-3b'", "qwen3-vl-2b"),
        (("video", "clip.mp4", "--calls", "1"), "--calls 1: must be at least 2", None),
        (("video", "clip.mp4", "--max-new-tokens", "0"), "must be at least 1", None),
    ],
)
def test_wrong_use(refused, command, says, hint):
    refused("bench", *command, code=2, says=says, hint=hint)


def test_a_machine_without_the_memory(refused, monkeypatch):
    from malmm_cli.processes import machine

    monkeypatch.setattr(machine, "free_memory", lambda: 10**9)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(random_init, "write", SimpleNamespace)
    run = ("bench", "model", "qwen3-vl-2b", "new", "--device", "cpu", "--dtype", "bfloat16")
    refused(*run, code=1, says="bfloat16 needs 4.3 GB of memory", hint="a smaller model")
