"""What `malmm eval` says of its numbers: how many, how sure, of which model, with which options."""

import json
import random
import shutil

import pytest
from helpers.commands import SAMPLE

import malmm_cli
from malmm_cli.evaluate import naming, scores
from malmm_cli.evaluate.intervals import bootstrap, wilson
from malmm_cli.evaluate.plan import Plan
from malmm_cli.evaluate.predictions import Prediction
from malmm_cli.evaluate.scores import Rule, score
from malmm_cli.models.instructblip.defaults import ASK, CAPTION
from malmm_cli.settings import changed
from malmm_cli.types import Task

FEW = ("--frames", "6", "--beams", "2", "--max-new-tokens", "4")


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    monkeypatch.setattr(scores, "meteor", lambda *_: 0.25)


@pytest.fixture
def data(tmp_path):
    """Two questions and two captions about one video."""
    shutil.copy(SAMPLE, tmp_path / "a.mp4")
    tasks = [{"id": "1", "question": "what moves?"}, {"id": "2", "question": "what first?"}]
    tasks += [{"id": "3"}, {"id": "4", "prompt": "what is shown?"}]
    everywhere = {"video": "a.mp4", "answer": "a red star spins"}
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps({**everywhere, **task}) + "\n" for task in tasks))
    return path


@pytest.fixture
def evaluate(malmm, t5_folder):
    def run(*arguments, code=0):
        done = malmm("eval", "--model", t5_folder, *FEW, "-q", *arguments)
        assert done.code == code, done.err
        return done

    return run


# --- intervals


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(0, 10, 0, 0.2775), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662), (1, 1, 0.2065, 1)],
)
def test_wilson_is_that_of_the_books(right, count, low, high):
    """Newcombe, Statistics in Medicine 17 (1998), table I: method 3, for 81 of 263."""
    assert wilson(right, count) == pytest.approx([low, high], abs=5e-5)


def test_an_interval_of_nothing():
    assert wilson(0, 0) is None


@pytest.mark.parametrize("count", range(1, 60))
def test_wilson_ends_exactly_at_none_and_all(count):
    assert wilson(0, count)[0] == 0
    assert wilson(count, count)[1] == 1
    assert bootstrap([]) is None
    assert bootstrap([1.0]) is None


def test_the_bootstrap_repeats_and_is_that_of_the_normal_distribution():
    chance = random.Random(3)
    values = [chance.gauss(5, 2) for _ in range(400)]
    low, high = bootstrap(values)
    assert [low, high] == bootstrap(values)
    mean = sum(values) / 400
    spread = (sum((value - mean) ** 2 for value in values) / 400) ** 0.5
    assert low == pytest.approx(mean - 1.96 * spread / 20, abs=0.03)
    assert high == pytest.approx(mean + 1.96 * spread / 20, abs=0.03)
    assert bootstrap([2.0] * 5) == [2.0, 2.0]


def test_every_score_has_its_number_and_its_interval():
    tasks = [
        Task(str(k), "v.mp4", question="?", answers=("red",), kind="late", evidence=(0, 100.0 - k))
        for k in range(100)
    ]
    captions = ["a red star spins", "a blue heart vanishes", "nothing moves"] * 3
    tasks += [Task(f"c{k}", "v.mp4", answers=(text,)) for k, text in enumerate(captions)]
    shown = {"frames": 11, "first": 0.0, "last": 100.0, "end": 100.0, "duration": 100.0}
    texts = ["red"] * 40 + ["blue"] * 60 + ["a red star spins", "a blue star spins", "no"] * 3
    said = [
        Prediction(task.id, "v.mp4", "p", text, **shown)
        for task, text in zip(tasks, texts, strict=True)
    ]
    found = score(tasks, said, Rule(memory=4))
    rates = [found["questions"], found["kinds"]["late"], found["captions"]]
    rates += [found["age"]["newer"], found["age"]["older"], *found["length"]]
    rates += [*found["age"]["steps"], *found["age"]["seconds"], *found["age"]["quarters"]]
    for rate in rates:
        assert rate["interval"] == wilson(round(rate["exact"] * rate["count"]), rate["count"])
    for name in ("cider", "rouge_l"):
        low, high = found["captions"][f"{name}_interval"]
        assert low < found["captions"][name] < high
    assert "bleu4_interval" not in found["captions"], "not a mean"
    assert score([], [], Rule(memory=4))["questions"]["interval"] is None


# --- what is printed


def test_text_has_percent_signs_intervals_and_numbers(evaluate, data):
    lines = evaluate(data).out.splitlines()
    cells = {line.split("  ")[0]: line.split() for line in lines if line}
    assert lines[4].split() == ["score", "95", "%", "interval", "n"]
    assert cells["questions"] == ["questions", "0.0", "%", "0.0", "to", "65.8", "%", "2"]
    assert cells["captions"][-1] == "2"
    cider = next(line.split() for line in lines if line.startswith("  CIDEr"))
    assert "%" not in cider, "no percentage"
    assert len(cider) == 6
    assert max(map(len, lines[1:])) <= 80


def test_what_is_cited(evaluate, data, t5_folder):
    version = malmm_cli.__version__
    text = evaluate(data).out.splitlines()
    assert text[0] == f"{t5_folder}, float32, malmm {version}"
    options = "--memory {} --frames 6 --max-new-tokens 4 --beams 2"
    assert text[1:3] == [f"questions: {options.format(10)}", f"captions: {options.format(20)}"]
    unusual = evaluate(data, "--policy", "fifo", "--overwrite").out.splitlines()
    assert unusual[1] == f"questions: {options.format(10)} --policy fifo"
    about = json.loads(evaluate(data, "--json", "--overwrite").out)
    assert (about["malmm"], about["model"]) == (version, str(t5_folder))
    assert about["revision"] is None
    assert about["weights"]


def test_an_ablation_names_options_and_keeps_its_files(evaluate, data, tmp_path, monkeypatch):
    monkeypatch.setattr("malmm_cli.evaluate.ablation.LENGTHS", (2,))
    monkeypatch.setattr("malmm_cli.evaluate.ablation.FRAMES", (5,))
    monkeypatch.setattr("malmm_cli.evaluate.ablation.SEEDS", (0,))
    lines = evaluate(data, "--ablate").out.splitlines()
    assert lines[0].endswith(f"float32, malmm {malmm_cli.__version__}")
    assert lines[1].startswith("questions: --memory 10 --frames 6")
    assert lines[2].startswith("captions: --memory 10 --frames 6")
    assert lines[4].startswith("questions, % correct, n = 2, 95 % intervals up to ±")
    about = json.loads(evaluate(data, "--ablate", "--json").out)
    names = {row["name"]: row["options"] for row in about["rows"]}
    given = "both, mbc, M = 10, 6 frames"
    assert names[given] == "--banks both --policy mbc --memory 10 --frames 6"
    assert names["M = 2"] == "--memory 2"
    assert names["fifo"] == "--policy fifo"
    assert names["5 frames"] == "--frames 5"
    files = {path.name for path in (tmp_path / "tasks.ablation").iterdir()}
    assert {"given.jsonl", "m-2.jsonl", "fifo.jsonl", "5-frames.jsonl"} <= files


# --- what differs


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"max_new_tokens": 80}, "with --max-new-tokens 80, not 9, for questions"),
        ({"start": 5.0}, "with --from 5, not without, for questions"),
        ({"prompt": "Q {} A"}, "with --prompt 'Q {} A', not 'Question: {} Short answer:'"),
        ({"sample": True}, "with --sample, not without"),
        ({"seed": 3}, "with --seed 3, not without"),
    ],
)
def test_what_differs_is_named_as_on_the_command_line(changes, says):
    there, here = Plan(changed(ASK, **changes), CAPTION), Plan(ASK, CAPTION)
    assert naming.difference(there.as_dict(), here.as_dict()).startswith(says)


def test_what_differs_for_both_kinds_is_said_once():
    there = Plan(changed(ASK, max_new_tokens=80), changed(CAPTION, max_new_tokens=80))
    said = naming.difference(there.as_dict(), Plan(ASK, CAPTION).as_dict())
    assert said == "with --max-new-tokens 80, not 9"


@pytest.mark.parametrize(
    ("there", "here", "says"),
    [
        ({"dtype": "float16"}, {"dtype": "float32"}, "with --dtype float16, not float32"),
        ({"bits": 4}, {"bits": None}, "with --quantize 4bit, not without"),
        ({"choices": False}, {"choices": True}, "without --choices, not with --choices"),
        ({"revision": "a"}, {"revision": "b"}, "with revision a, not b"),
        ({"tasks": "a"}, {"tasks": "b"}, "for other tasks"),
        ({"questions": 5}, {"questions": {}}, "with questions 5, not {}"),
    ],
)
def test_other_things_that_differ(there, here, says):
    assert naming.difference(there, here) == says
