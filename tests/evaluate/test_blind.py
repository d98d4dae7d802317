"""The blind guess: learnt from other videos alone, by how questions begin."""

import json
import shutil

import pytest
from helpers.commands import SAMPLE

from malmm_cli.evaluate.blind import blind_scores, guesses
from malmm_cli.evaluate.predict import Prediction
from malmm_cli.evaluate.scores import Rule, score
from malmm_cli.types import Task

SHOWN = {"frames": 11, "first": 0.0, "last": 100.0, "end": 100.0, "duration": 100.0}


def ask(video, *asked, **more):
    """Tasks about one video, from pairs of question and answer."""
    return [
        Task(f"{video}-{k}", f"{video}.mp4", question=question, answers=(answer,), **more)
        for k, (question, answer) in enumerate(asked)
    ]


def everywhere(question, *answers):
    """A question about as many videos as there are answers."""
    return [task for k, text in enumerate(answers) for task in ask(f"v{k}", (question, text))]


def test_each_kind_of_question_has_a_commonest_answer():
    tasks = everywhere("What colour is the star?", *["red"] * 8, *["blue"] * 7)
    tasks += everywhere("what shape is the red thing?", *["star"] * 7, *["heart"] * 8)
    new = ask("new", ("what colour is the cross?", "x"), ("What shape is the blue one?", "x"))
    assert guesses(new, tasks) == ["red", "heart"]


def test_the_longest_beginning_that_is_common_decides():
    common = everywhere("is there a star?", *["yes"] * 30)
    rare = [task for k in range(12) for task in ask(f"r{k}", ("is there a blue star?", "no"))]
    new = ask("new", ("is there a blue heart?", "x"), ("is there a red heart?", "x"))
    assert guesses(new, common + rare) == ["no", "yes"]
    assert guesses(new, common + rare[:9]) == ["yes", "yes"], "nine say too little"


def test_nothing_is_learnt_from_the_video_in_question():
    tasks = ask("a", *[("what is it?", "red")] * 30) + ask("b", *[("what is it?", "blue")] * 12)
    assert guesses(tasks, tasks) == ["blue"] * 30 + ["red"] * 12


def test_of_equals_none_is_favoured_by_the_video_in_question():
    tasks = everywhere("what colour is it?", *["red"] * 11, *["blue"] * 10)
    assert guesses(tasks, tasks) == ["blue"] * 11 + ["red"] * 10


def test_an_answer_in_the_question_counts_by_its_place():
    names = ("star", "heart", "cross", "ring", "moon", "drop")
    tasks = [
        task
        for k, (a, b) in enumerate((a, b) for a in names for b in names if a != b)
        for task in ask(f"v{k}", (f"Which comes first, the {a} or the {b}?", f"the {b}"))
    ]
    new = ask("new", ("which comes first, the blue or the red?", "x"))
    assert guesses(new, tasks) == ["red"]


def test_with_choices_one_of_them_is_guessed():
    tasks = everywhere("what moves?", *["red"] * 8, *["Blue"] * 6, "green")
    new = ask("new", ("what moves?", "x"), choices=("green", "BLUE"))
    assert guesses(new, tasks, choices=True) == ["BLUE"]
    assert guesses(new, tasks) == ["red"]
    other = ask("new", ("what moves?", "x"), choices=("one", "two"))
    assert guesses(other, tasks, choices=True) == ["one"]


def test_classes_without_a_question_are_guessed_too():
    classes = {"prompt": "what is shown?", "choices": ("tea", "milk")}
    tasks = [Task(str(k), f"{k}.mp4", answers=("milk",), **classes) for k in range(3)]
    assert guesses(tasks, tasks, choices=True) == ["milk"] * 3


def test_scores_are_of_the_questions_that_were_answered():
    tasks = everywhere("what moves?", *["red"] * 12, *["blue"] * 4)
    tasks[0] = Task("first", "v0.mp4", question="what moves?", answers=("red",), kind="early")
    tasks += [Task("caption", "v1.mp4", answers=("red",))]
    said = [Prediction(task.id, task.video, "p", "no", **SHOWN) for task in tasks]
    said[1] = Prediction(tasks[1].id, "v1.mp4", "p", error={"kind": "K", "message": "m"})
    found = blind_scores(tasks, said, Rule(memory=4))
    assert (found["questions"]["exact"], found["questions"]["count"]) == (11 / 15, 15)
    assert found["captions"]["count"] == found["failed"] == 0
    assert found["kinds"]["early"]["exact"] == 1.0
    own = score(tasks, said, Rule(memory=4, metrics=False))
    assert [part["count"] for part in found["length"]] == [part["count"] for part in own["length"]]


def test_nothing_to_learn_from_means_no_guess():
    tasks = ask("a", *[("what moves?", "red")] * 30)
    said = [Prediction(task.id, task.video, "p", "red", **SHOWN) for task in tasks]
    assert blind_scores(tasks, said, Rule(memory=4)) is None
    caption = [Task("1", "a.mp4", answers=("red",))]
    assert blind_scores(caption, said[:1], Rule(memory=4)) is None


@pytest.fixture
def data(tmp_path):
    shutil.copy(SAMPLE, tmp_path / "a.mp4")
    task = {"id": "1", "video": "a.mp4", "question": "what moves?", "answer": "a star"}
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps({**task, "kind": "late", "evidence": [50, 60]}))
    return path


def test_a_report_has_the_blind_guess_beside_each_score(malmm, t5_folder, data):
    few = ("--model", t5_folder, "--frames", "4", "--max-new-tokens", "2", "-q")
    alone = malmm("eval", data, *few)
    assert alone.code == 0
    assert "blind" not in alone.out, "one video: nothing to learn from"
    train = data.with_name("train.jsonl")
    learnt = {"video": "not-there.mp4", "question": "what moves?", "answer": "star"}
    train.write_text("".join(json.dumps({"id": k, **learnt}) + "\n" for k in range(12)))
    lines = malmm("eval", data, *few, "--guess-from", train).out.splitlines()
    heading = next(k for k, line in enumerate(lines) if line.split()[:1] == ["score"])
    assert lines[heading].endswith("blind guess")
    for line in lines[heading + 1 :]:
        if not line.startswith(("kind", "evidence", "video", "  10 frames or older")):
            assert line.endswith("  100.0 %"), line
    assert max(map(len, lines[1:])) <= 80
    found = json.loads(malmm("eval", data, *few, "--guess-from", train, "--json").out)
    assert found["blind"]["questions"]["exact"] == 1.0
    missing = malmm("eval", data, *few, "--guess-from", data.with_name("no.jsonl"))
    assert missing.code == 2
    assert "no.jsonl" in missing.err
