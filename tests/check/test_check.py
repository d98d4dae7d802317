"""`malmm models check` with tiny models: nothing is found, and what was planted is."""

import importlib.util
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from rich.cells import cell_len

from malmm_cli.check import clip, runner, verdict
from malmm_cli.cli.check_summary import summary
from malmm_cli.errors import ModelError
from malmm_cli.models import registry
from malmm_cli.models.reading import Reading
from malmm_cli.models.vlm.load import ADAPTERS

CPU = ("--device", "cpu")
MAKE = Path(__file__).parents[1] / "golden" / "vlm" / "make.py"


@pytest.fixture
def checked(malmm, tmp_path, monkeypatch):
    """Checks a folder's model; the exit code and the report."""
    monkeypatch.chdir(tmp_path)

    def check(folder, *options):
        done = malmm("models", "check", folder, *CPU, "-q", "-o", "report.json", *options)
        assert done.err == ""
        return done.code, json.loads((tmp_path / "report.json").read_text("utf-8"))

    return check


def test_the_ids_of_an_answer_are_those_that_were_generated(published):
    """Its text may read back as others: a space that it begins with is not shown."""
    folder = published("smolvlm")
    model, part = registry.load(folder), registry.part(folder, "check")
    frames = torch.from_numpy(clip.frames(*model.frame_size(*clip.SIZE)))
    texts = [question.text for question in clip.QUESTIONS]
    asked = part.asked(model, folder, frames, torch.arange(len(frames)).double(), texts)
    ours = part.ours(model, asked, 8)
    theirs = part.theirs(folder, asked, torch.device("cpu"), torch.float32, 8)
    assert [one.tokens for one in ours] == [other.tokens for other in theirs]
    assert ours[0].tokens != model.texts.ids(ours[0].answer)


@pytest.mark.parametrize("architecture", ADAPTERS)
def test_both_paths_agree(checked, published, architecture):
    code, report = checked(published(architecture))
    assert (code, report["agree"]) == (0, True)
    assert report["architecture"] == architecture
    assert report["prompts"]["equal"]
    assert report["logits"]["largest_difference"] < 1e-4
    for one in report["questions"]:
        assert one["agree"]
        assert one["malmm"] == one["transformers"] != ""


def changed(folder, tmp_path, old, new):
    """A copy whose chat template says something else."""
    shutil.copytree(folder, other := tmp_path / "changed")
    for name in ("chat_template.jinja", "chat_template.json"):
        text = (other / name).read_text("utf-8")
        told = (
            (old, new) if name.endswith("jinja") else (json.dumps(old)[1:-1], json.dumps(new)[1:-1])
        )
        assert told[0] in text
        (other / name).write_text(text.replace(*told, 1), "utf-8")
    return other


def test_a_template_with_more_words_is_found(checked, published, tmp_path):
    start = "{% for message in messages %}"
    other = changed(published("qwen3_vl"), tmp_path, start, f"<|im_start|>system\nBe brief.{start}")
    code, report = checked(other)
    assert (code, report["agree"], report["prompts"]["equal"]) == (1, False, False)
    first = report["prompts"]["first_difference"]
    assert (first["question"], first["token"]) == (0, 1)
    assert first["malmm"].startswith("user\n")
    assert first["transformers"].startswith("system\nBe")
    assert report["logits"]["largest_difference"] is None
    assert "prompts     differ\n" in summary(report)
    assert "logits      not comparable\n" in summary(report)


def test_a_template_without_a_video_is_refused(refused, published, tmp_path):
    other = changed(published("internvl"), tmp_path, "<video>", "<movie>")
    says = "its chat template has no <video> for a video"
    refused("models", "check", other, *CPU, "-q", code=1, says=says, hint="published files")


def test_what_transformers_cannot_load_is_an_error(refused, published, monkeypatch):
    folder = published("internvl")
    registry.load(
        folder, device=torch.device("cpu"), dtype=torch.float32, quantize=None, spread=False
    )

    def unreadable(*_, **__):
        raise OSError("no file named\nmodel.safetensors")

    monkeypatch.setattr(
        transformers.InternVLForConditionalGeneration, "from_pretrained", unreadable
    )
    says = "transformers itself cannot load it: no file named"
    refused("models", "check", folder, *CPU, "-q", code=1, says=says, hint="published files")


def test_a_weight_that_is_loaded_wrongly_is_found(checked, published, monkeypatch):
    def load(folder, **options):
        model = registry.part(folder, "load").load(folder, **options)
        model.adapter.language(model.net).layers[1].mlp.down_proj.weight.mul_(1.5)
        return model

    monkeypatch.setattr(registry, "load", load)
    code, report = checked(published("smolvlm"))
    assert (code, report["agree"]) == (1, False)
    assert report["prompts"]["equal"]
    assert not report["logits"]["agree"]
    assert report["logits"]["largest_difference"] > 0.01
    assert "the paths differ" in summary(report)


def test_positions_that_are_wrong_are_found(checked, published, monkeypatch):
    kind = ADAPTERS["qwen3_vl"]
    right = kind.slot_positions

    def one_too_far(self, places):
        where, size = right(self, places)
        return where, size + 1

    monkeypatch.setattr(kind, "slot_positions", one_too_far)
    code, report = checked(published("qwen3_vl"))
    assert (code, report["prompts"]["equal"], report["logits"]["agree"]) == (1, True, False)


def test_what_is_printed_fits_on_a_screen(malmm, published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = malmm("models", "check", published("internvl"), *CPU, "--no-progress")
    assert done.code == 0
    lines = done.out.splitlines()
    assert len(lines) <= 24
    assert max(map(cell_len, lines)) <= 80
    assert done.err.splitlines()[-1] == "report: model.check.json"
    assert "result      both paths agree" in lines
    report = json.loads(Path("model.check.json").read_text("utf-8"))
    if report["versions"]["torchvision"] is None:
        assert "processor   not used: no torchvision" in lines
        assert (report["processor"], report["pixels"]) == (None, None)
    again = malmm("models", "check", published("internvl"), *CPU, "-q")
    assert (again.code, again.out) == (2, "")
    assert again.err.startswith("error: model.check.json: exists")
    again = malmm("models", "check", published("internvl"), *CPU, "-q", "--overwrite", "--json")
    assert again.out == Path("model.check.json").read_text("utf-8")


def test_a_report_that_cannot_be_written_is_printed(malmm, published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = runner.run

    def late(*given, **more):  # another program makes a file meanwhile
        Path("report.json").write_text("precious")
        return run(*given, **more)

    monkeypatch.setattr(runner, "run", late)
    name = published("internvl")
    for options in ([], ["--json"]):
        Path("report.json").unlink(missing_ok=True)
        done = malmm("models", "check", name, *CPU, "-q", "-o", "report.json", *options)
        assert done.code == 1
        assert Path("report.json").read_text() == "precious"
        assert "hint: the report is printed on stdout instead" in done.err
        assert json.loads(done.out[done.out.index("{") :])["agree"]


def test_the_longest_summary_fits_too(checked, published):
    _, report = checked(published("internvl"))
    first = {"question": 2, "token": 1, "malmm": "a" * 99, "transformers": "日" * 99}
    report |= {
        "repository": "o" * 90,
        "revision": "c" * 40,
        "processor": "p" * 99,
    }
    report["prompts"] |= {"equal": False, "first_difference": first}
    report["pixels"] = {"largest_difference": None, "allowed": 1e-4, "agree": False}
    for one in report["questions"]:
        one |= {"malmm": "日本 " * 40, "transformers": "b\n" * 99}
    lines = summary(report).splitlines()
    assert len(lines) <= 24
    assert max(map(cell_len, lines)) <= 80
    assert lines[-1] == "result      both paths agree"


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        (["tiny"], "tiny: models of type instructblip cannot be checked", "qwen3_vl, qwen3_5, s"),
        (["vicuna-7b"], "vicuna-7b: models of type instructblip cannot be", "smolvlm, internvl"),
        (["qwen3-vl-3b"], "unknown model 'qwen3-vl-3b'", "did you mean qwen3-vl-"),
        (["smolvlm2-256m", "--dtype", "int8"], "unknown dtype 'int8'", "float32"),
        (["smolvlm2-256m", "-o", "no/report.json"], "no such folder: no", "create it first"),
    ],
)
def test_what_is_refused_at_once(refused, monkeypatch, arguments, says, hint):
    monkeypatch.setitem(sys.modules, "malmm_cli.check.runner", None)  # it imports torch
    refused("models", "check", *arguments, code=2, says=says, hint=hint)


def test_without_the_network(refused, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "malmm_cli.check.runner", None)
    arguments = ("smolvlm2-256m", *CPU, "--offline")
    refused("models", "check", *arguments, code=1, says="not fully downloaded", hint="online")


def test_the_processor_of_transformers_is_used(checked, published, tmp_path):
    """Where torchvision is installed; the folder has its processor as published ones do."""
    pytest.importorskip("torchvision")
    about = importlib.util.spec_from_file_location("make_golden", MAKE)
    about.loader.exec_module(make := importlib.util.module_from_spec(about))
    for architecture in ADAPTERS:
        shutil.copytree(published(architecture), folder := tmp_path / architecture)
        config = json.loads((folder / "config.json").read_text("utf-8"))
        kind = getattr(transformers, ADAPTERS[architecture].kind).config_class
        adapter = ADAPTERS[architecture](kind.from_dict(config))
        make.processor(architecture, folder, adapter).save_pretrained(folder)
        code, report = checked(folder, "--overwrite")
        assert (code, report["no_processor"]) == (0, None)
        assert report["processor"]
        assert report["pixels"]["agree"]


# --- the parts


def reading(ids, logits, answer="", tokens=(), steps=None):
    return Reading([*ids], torch.tensor([logits]), answer, [*tokens], steps)


def test_prompts_that_end_early_differ_where_they_end():
    longer = reading([5, 6, 7], [1.0])
    found = verdict.prompts([longer], [reading([5, 6], [1.0])], str)
    assert found["first_difference"] == {
        "question": 0,
        "token": 2,
        "malmm": "[7]",
        "transformers": "[]",
    }
    assert verdict.prompts([longer], [longer], str)["first_difference"] is None


def test_the_difference_is_a_share_of_the_largest_logit():
    ours, theirs = reading([1], [1.0, -8.0]), reading([1], [1.1, -8.0])
    found = verdict.logits([ours], [theirs], "float32")
    assert found["largest_difference"] == pytest.approx(0.1 / 8, rel=1e-5)
    assert not found["agree"]
    assert verdict.logits([ours], [theirs], "bfloat16")["agree"]
    assert verdict.logits([ours], [ours], "float32")["largest_difference"] == 0


def test_logits_that_are_not_finite_are_an_error():
    ours, theirs = reading([1], [1.0]), reading([1], [math.nan])
    with pytest.raises(ModelError, match="transformers computed NaN"):
        verdict.logits([ours], [theirs], "float16")


@pytest.mark.parametrize(
    ("lead", "dtype", "agree"),
    [
        (0.0005, "float32", True),
        (0.5, "float32", False),
        (0.5, "bfloat16", False),
        (0.1, "bfloat16", True),
    ],
)
def test_answers_may_part_where_transformers_hardly_prefers_its_own(lead, dtype, agree):
    steps = torch.tensor([[4.0, 0.0, 0.0], [0.0, 4.0, 4.0 - lead]])
    ours = reading([1], [1.0], "a c", [0, 2])
    theirs = reading([1], [1.0], "a b", [0, 1], steps)
    (found,) = verdict.answers(clip.QUESTIONS[:1], [ours], [theirs], dtype)
    assert found["agree"] is agree


def test_an_answer_that_goes_on_is_another_one():
    steps = torch.tensor([[4.0, 0.0]])
    ours = reading([1], [1.0], "a b", [0, 1])
    (found,) = verdict.answers(
        clip.QUESTIONS[:1], [ours], [reading([1], [1.0], "a", [0], steps)], "float32"
    )
    assert not found["agree"]


@pytest.mark.parametrize(
    ("question", "answer", "right"),
    [
        (0, "Red.", True),
        (0, "The shape is red", True),
        (0, "blue", False),
        (0, "reddish", False),
        (1, "A red star", True),
        (1, "It is a square, not a star? A square", False),
        (2, "It moves from left to right.", True),
        (2, "from right to left", False),
        (2, "", False),
    ],
)
def test_which_answers_are_right(question, answer, right):
    assert clip.QUESTIONS[question].is_right(answer) is right


def test_the_clip_is_what_is_asked_about():
    frames = clip.frames(64, 48).astype(int)
    assert frames.shape == (clip.SECONDS, 48, 64, 3)
    red = (frames[..., 0] > 180) & (frames[..., 1:].max(-1) < 100)
    middles = [float(np.nonzero(one)[1].mean()) for one in red]
    assert middles == sorted(middles)
    assert middles[-1] - middles[0] > 64 / 5
