"""`malmm bench` refuses what this machine cannot hold before it builds anything."""

import json
import subprocess
import sys
from importlib import import_module

import pytest
import torch
from helpers.memories import remember, start
from PIL import Image

from malmm_cli.bench import child, drift, size
from malmm_cli.bench.bound import work_of
from malmm_cli.errors import MalmmError
from malmm_cli.models.instructblip import random_init
from malmm_cli.models.instructblip.sizes import feature_shape
from malmm_cli.processes import machine as hardware


@pytest.fixture
def machine(monkeypatch):
    """A machine with that much free memory, on which nothing is built and nothing is measured."""

    def build(*_, **__):
        raise AssertionError("gigabytes would have been built")

    monkeypatch.setattr(random_init, "write", build)
    monkeypatch.setattr(size, "in_child", build)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    def with_free(size):
        monkeypatch.setattr(hardware, "free_memory", lambda: size)

    return with_free


@pytest.mark.parametrize(
    ("options", "free", "says"),
    [
        (
            ["--dtype", "float32"],
            20,
            "float32 needs 31.7 GB of memory, but only 20.0 GB is free: 11.7",
        ),
        ([], 10, "bfloat16 needs 15.8 GB of memory, but only 10.0 GB is free: 5.8 GB too little"),
    ],
)
def test_a_model_that_does_not_fit(refused, machine, options, free, says):
    machine(free * 10**9)
    options = ("--device", "cpu", *options)
    hint = "a smaller model"
    refused("bench", "model", "vicuna-7b", "new", *options, code=1, says=says, hint=hint)


def test_what_fits_is_built_in_the_numbers_that_fit(malmm, machine, monkeypatch, tmp_path):
    machine(20 * 10**9)
    built = []
    monkeypatch.setattr(random_init, "write", lambda *_, dtype: built.append(str(dtype)))
    row = {"parameters": 1, "dtype": "bfloat16", "device": "cpu", "frames": 2, "seconds": {}}
    row |= {"peak_mib": 1, "peak_device_mib": 0}
    row["seconds"] = {"open": 0.123, "decode": 1.5, "remember": 12345.678, "generate": 2.0}
    monkeypatch.setattr(size, "in_child", lambda _, **given: built.append(given["dtype"]) or row)
    done = malmm("bench", "model", "vicuna-7b", tmp_path, "--device", "cpu")
    assert done.code == 0
    assert done.out.splitlines()[1:3] == [
        "frames       open    decode    encode  remember  generate",
        "2            0.12      1.50            12345.68      2.00",
    ]
    assert built == ["torch.bfloat16", "bfloat16"]


def test_a_model_of_few_text_layers_takes_that_much_less(malmm, machine, monkeypatch, tmp_path):
    """What comes before text is 1.2 billion numbers, which fit where 7.9 billion do not."""
    machine(7 * 10**9)
    built = []
    monkeypatch.setattr(random_init, "write", lambda _, config, *__, dtype: built.append(config))
    row = {"parameters": 1, "dtype": "float32", "device": "cpu", "frames": 2, "seconds": {}}
    row |= {"peak_mib": 1, "peak_device_mib": 0}
    monkeypatch.setattr(size, "in_child", lambda _, **__: row)
    options = ("--device", "cpu", "--dtype", "float32", "--text-layers", "1")
    assert malmm("bench", "model", "vicuna-7b", tmp_path / "new", *options).code == 0
    (config,) = built
    assert config.text_config.num_hidden_layers == 1
    assert config.vision_config.num_hidden_layers == 39
    assert config.qformer_config.num_hidden_layers == 12
    machine(6 * 10**9)
    assert malmm("bench", "model", "vicuna-7b", tmp_path / "new", *options).code == 1


BETWEEN = ("malmm", "bound", "transformers", "naive", "encoder-step", "decode")  # lines below rows
ONE = ("--frames", "4", "--memory", "2")
ROW = {"form": "none", "memory": 0, "seconds": 0.1, "ratio": 1.0, "peak_mib": 9}


def test_a_video_stage_by_stage(malmm, here, clip, t5_folder):
    done = malmm("bench", "video", clip, "--model", t5_folder, *ONE, "--questions", "2", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    rows = {row["form"]: row for row in told["videos"]}
    assert list(rows) == ["encoder-step", "decode", "malmm", "bound", "naive", "transformers"]
    stages = ["open", "decode", "encode", "remember", "generate"]
    assert list(rows["malmm"]["seconds"]) == stages
    assert list(rows["naive"]["seconds"]) == stages[1:]
    assert all(row["frames"] == 4 and row["before"] > 0 for row in rows.values())
    larger = max(rows["encoder-step"]["before"], rows["decode"]["before"])
    assert rows["malmm"]["ratio"] == round(rows["malmm"]["before"] / larger, 3)
    naive = rows["naive"]["before"] / rows["malmm"]["before"]
    assert rows["naive"]["ratio"] == round(naive, 3)
    assert rows["bound"]["encoder_share"] > 0
    assert rows["malmm"]["before"] < rows["malmm"]["first"]
    assert rows["transformers"]["before"] < rows["transformers"]["first"]
    assert "encoder_ratio" in rows["malmm"]
    assert {"first_ratio", "peak_ratio"} <= rows["transformers"].keys()
    asked = [(row["form"], row["questions"]) for row in told["questions"]]
    assert asked == [("malmm", 1), ("malmm", 2), ("memory file", 2)]
    assert told["questions"][0]["ratio"] == 1
    assert told["machine"]["torch"]


def test_frames_a_second(malmm, here, clip, t5_folder):
    how = ("--form", "malmm", "--fps", "2", "--memory", "2")
    done = malmm("bench", "video", clip, "--model", t5_folder, *how, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["videos"][0]["frames"] > 2


def test_what_was_measured_before_a_failure_is_kept(
    malmm, here, monkeypatch, clip, t5_folder, tmp_path
):
    from malmm_cli.bench import steps, video

    def fail(*_, **__):
        raise MalmmError("measuring failed")

    monkeypatch.setattr(steps, "in_child", lambda *_, **__: ROW)
    monkeypatch.setattr(video, "in_child", fail)
    monkeypatch.setattr(drift, "__defaults__", (["bfloat16"], [20]))
    path = tmp_path / "page.md"
    done = malmm("bench", "all", clip, "-o", path, "--model", t5_folder, "--no-progress")
    assert (done.code, done.err) == (1, "error: measuring failed\n")
    assert "| none | 0 | 0.1 | 1.0 | 9 |" in path.read_text()
    assert "**The run was stopped: " in path.read_text()


def test_nothing_is_measured_or_replaced_before_the_rest_is_found_good(
    refused, here, clip, tmp_path
):
    (tmp_path / "page.png").touch()
    run = ("bench", "all", clip, "--model", "tiny", "-o", tmp_path / "page.md")
    refused(*run, code=2, says="page.png: exists")
    run = ("bench", "video", clip, "--model", "tiny", "--form", "decode")
    refused(*run, "--device", "cuda:9", code=2, says="'cuda:9' is not available")


@pytest.fixture
def large(monkeypatch):
    """Measures nothing, and finds numbers as large as a machine may have them."""
    from malmm_cli.bench import steps, video

    decoding = import_module("malmm_cli.bench.decoding")  # the package has a call of that name

    stages = ("open", "decode", "encode", "remember", "generate")
    row = {
        "seconds": {**dict.fromkeys(stages, 12345.678), "open": 123.4},
        "before": 86400.123,
        "rate": 1234.56,
        "frames": 1_000_000,
        "duration": 36000.0,
        "device": "cuda",
        "dtype": "bfloat16",
        "peak_mib": 99999,
        "peak_device_mib": 81559,
        "visual": 3.21,
        "first": 86500.123,
        "read": 12345.678,
        "encoder_share": 0.93,
    }
    plain = {**row, "seconds": 12345.67, "cpu": 98765.43, "ratio": 1.0, "differs": 12.34}
    monkeypatch.setattr(video, "in_child", lambda *_, **__: row)
    monkeypatch.setattr(
        steps, "in_child", lambda *_, form, length, **__: {**plain, "form": form, "memory": length}
    )
    monkeypatch.setattr(decoding, "in_child", lambda *_, **__: plain)
    monkeypatch.setattr(drift, "__defaults__", (["bfloat16"], [20, 10]))


@pytest.mark.parametrize("what", ["step", "drift", "decode", "video"])
def test_tables_are_aligned_and_fit_a_terminal(malmm, large, clip, what, monkeypatch):
    monkeypatch.chdir(clip.parent)
    options = {
        "decode": (clip.name, "--fps", "1"),
        "video": (clip.name, "--model", "tiny", "--questions", "1000", "--fps", "1"),
    }
    done = malmm("bench", what, *options.get(what, ()))
    assert done.code == 0, done.err
    assert "\t" not in done.out
    tables = [[]]
    for line in done.out.splitlines():
        assert len(line) <= 80
        if line.startswith(("form ", "reader ", "numbers ")):
            tables.append([])
        if line.split(":")[0] not in (clip.name, *BETWEEN):
            tables[-1].append(line)
    assert tables.pop(0) == []
    assert len(tables) == (2 if what == "video" else 1)
    for heading, *rows in tables:
        assert rows
        heads = heading.split() if what == "video" and "open" in heading else heading.split("  ")
        for head in filter(None, heads[1:]):
            end = heading.index(head.strip()) + len(head.strip())
            for row in rows:
                assert row[end : end + 1] in ("", " "), "columns end where their heads do"


def test_what_is_left_out_is_told(malmm, here, clip, write_model):
    folder = write_model("vicuna", context=256)
    run = ("bench", "video", clip, "--model", folder, "--form", "transformers")
    done = malmm(*run, "--form", "naive", "--frames", "4", "--compare", "3")
    assert done.out == ""
    assert "naive not measured: 4 frames, more than 3" in done.err
    assert "transformers not measured: 4 frames, more than 3" in done.err
    title, heading, row, first = malmm(*run, "--frames", "2").out.splitlines()
    assert title == f"{clip}: 2 frames of 2 s"
    assert heading.split()[:3] == ["form", "open", "decode"]
    assert row.startswith("transformers ")
    assert first.startswith("transformers: first token after ")
    done = malmm(*run, "--frames", "30")
    assert done.out == ""
    assert "the language model reads 256" in done.err


def test_contenders_agree(load_once, t5_folder, vicuna_folder, one_thread):
    """Transformers' InstructBLIP-Video says of each frame what ours says without a memory."""
    from malmm_cli.models.instructblip import forms

    for folder in (t5_folder, vicuna_folder):
        net = load_once(folder)
        theirs = forms.published_model(net)
        frames = torch.randint(0, 256, (3, net.image_size, net.image_size, 3), dtype=torch.uint8)
        prompts = ["what moves?"]
        tokens, _ = remember(net, net.encode_frames(frames)[None], start(net, prompts, length=0))
        pixels = frames.permute(0, 3, 1, 2)[None] / 255
        pixels = (pixels - net.pixel_mean[:, None, None]) / net.pixel_std[:, None, None]
        with torch.no_grad():
            told = theirs.get_video_features(
                pixels, *net.texts.instructions(prompts), return_dict=True
            ).pooler_output
            ours = net.language_projection(tokens)
        torch.testing.assert_close(told.reshape(ours.shape), ours, atol=1e-4, rtol=1e-4)


def test_the_arithmetic_of_the_encoder(load_once, vicuna_folder):
    """By the formula of a vision transformer."""
    net = load_once(vicuna_folder)
    frame = torch.zeros(1, net.image_size, net.image_size, 3, dtype=torch.uint8)
    vision, (patches, width) = net.config.vision_config, feature_shape(net.config)
    linear = 4 * width**2 + 2 * width * vision.intermediate_size
    layer = 2 * patches * linear + 4 * patches**2 * width
    cut = 2 * patches * width * 3 * vision.patch_size**2
    work = vision.num_hidden_layers * layer + cut
    assert work_of(lambda: net.encode_frames(frame)) == pytest.approx(work, rel=0.02)


def test_rounding_does_not_pile_up(one_thread):
    for row in drift(marks=[30, 300], length=8):
        assert row["entries"] < 1e-6, "means are kept in float32, whatever is computed with"
        assert row["keys"] < max(1.2 * row["once"], 1e-6)
    assert 1e-3 < row["once"] * 8 < 1e-2, "float16 rounds to eleven bits"


def test_drift(malmm, monkeypatch):
    monkeypatch.setattr(drift, "__defaults__", (["bfloat16"], [20]))
    done = malmm("bench", "drift")
    heading, row = done.out.splitlines()
    assert heading.split() == ["numbers", "steps", "entries", "keys", "once"]
    assert row.split()[:2] == ["bfloat16", "20"]
    (row,) = json.loads(malmm("bench", "drift", "--json").out)
    assert row["steps"] == 20


def grown(_, *, frames, memory, **__):
    """A point of `bench growth`: without a memory, 32 tokens of at most 60 frames are read."""
    row = {"tokens": 32 if memory else 32 * frames, "context": 2048, "failed": None}
    row |= {"peak_mib": 500, "peak_device_mib": 0}
    if memory or frames <= 60:
        return row
    return {**row, "failed": "too many tokens", "tokens": None, "peak_mib": None, "most": 60}


def test_the_page(malmm, here, clip, t5_folder, tmp_path, monkeypatch):
    from malmm_cli.bench import steps

    monkeypatch.setattr(steps, "in_child", lambda *_, **__: ROW)
    monkeypatch.setattr(import_module("malmm_cli.bench.growth"), "in_child", grown)
    monkeypatch.setattr(drift, "__defaults__", (["bfloat16"], [20]))
    path = tmp_path / "page.md"
    few = ("--questions", "2", "--steps", "3", "--compare", "3", *ONE, "--no-progress")
    run = ("bench", "all", clip, "-o", path, "--model", t5_folder, *few)
    done = malmm(*run)
    assert (done.code, done.out) == (0, ""), done.err
    text = path.read_text()
    assert text.count("| none | 0 | 0.1 | 1.0 | 9 |\n") == 3
    assert "| bfloat16 | 20 | " in text
    assert "| malmm | 4 | 0." in text
    assert "Not run: naive: 4 frames, more than 3." in text
    assert "| memory file | 2 |" in text
    assert "| 2 | 60 | 32 | 500 |  |\n| none | 60 | 1920 | 500 |  |\n" in text
    assert "Without a memory, 100 frames fail: too many tokens." in text
    assert "The run was stopped" not in text
    for name in ("page.png", "page-growth.png"):
        assert f"({name})" in text
        with Image.open(tmp_path / name) as picture:
            assert picture.width > picture.height > 300
    assert malmm(*run).code == 2


def test_the_peak_is_that_of_the_process_and_not_of_its_parent():
    def peak():
        code = "from malmm_cli.bench.child import peak_mib; print(peak_mib())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        return int(done.stdout)

    before = peak()
    ballast = bytearray(b"x" * (before + 300) * 2**20)
    assert abs(peak() - before) < 100, len(ballast)


def test_a_process_of_its_own():
    with pytest.raises(MalmmError, match=r"measuring decode failed: .*nope\.mp4"):
        child.in_child("decode", video="nope.mp4", model="tiny", frames=2)
