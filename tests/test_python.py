"""The library calls, without the command line."""

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest
from helpers.commands import SAMPLE
from helpers.events import Recorded

import malmm_cli
from malmm_cli.batch import runner
from malmm_cli.errors import MediaError, UsageError
from malmm_cli.models.instructblip.defaults import ASK
from malmm_cli.settings import Changes, Settings, changed

FEW = {"frames": 2, "memory": 1, "beams": 1, "max_new_tokens": 3}


@pytest.fixture
def model(t5_folder):
    return malmm_cli.load(str(t5_folder))


@pytest.fixture
def here(tmp_path, monkeypatch, one_thread, inline):
    monkeypatch.chdir(tmp_path)
    Path("broken.mp4").write_text("not a video")
    return tmp_path


def write_tasks(path="tasks.jsonl", videos=(SAMPLE,)):
    lines = [
        {"id": str(number), "video": str(video), "question": "what?", "answer": "a circle"}
        for number, video in enumerate(videos)
    ]
    Path(path).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Path(path)


def test_importing_malmm_is_light_whatever_was_imported_first():
    code = (
        "import sys, malmm_cli.batch.job, malmm_cli\n"
        "assert 'torch' not in sys.modules\n"
        "assert callable(malmm_cli.batch.run) and callable(malmm_cli.batch.dry_run)\n"
        "import malmm_cli.evaluate.scores, malmm_cli.train.recipe, malmm_cli.batch.runner\n"
        "assert all(callable(part.run) for part in"
        " (malmm_cli.batch, malmm_cli.evaluate, malmm_cli.train))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_changes_are_all_fields_of_settings():
    parts = [get_type_hints(Settings)[name] for name in ("sampling", "memory", "decoding")]
    names = {field.name for part in parts for field in fields(part)} - {"length"}
    own = {"prompt", "look_again"}
    assert set(Changes.__annotations__) == names | own | {"memory", "memory_seed"}


def test_options_of_a_batch_are_its_fields():
    own = {field.name for field in fields(runner._Batch)} - {"inputs", "output", "changes"}
    assert set(runner.Options.__annotations__) == own | set(Changes.__annotations__)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"frames": "ten"}, "frames must be an integer or None, not 'ten'"),
        ({"frames": True}, "frames must be an integer or None, not True"),
        ({"frames": 2.5}, "frames must be an integer or None, not 2.5"),
        ({"beams": None}, "beams must be an integer, not None"),
        ({"fps": "1"}, "fps must be a number or None, not '1'"),
        ({"prompt": 3}, "prompt must be text, not 3"),
        ({"sample": 1}, "sample must be True or False, not 1"),
        ({"frmaes": 3}, r"caption\(\) has no setting 'frmaes'; did you mean 'frames'\?"),
        ({"settings": {"frames": 3}}, "settings must be Settings"),
        ({"model": 3}, "model must be a model's name, its folder or a loaded model, not 3"),
    ],
)
def test_a_wrong_argument_is_named(model, changes, says):
    with pytest.raises(UsageError, match=says):
        malmm_cli.caption(SAMPLE, **{"model": model, **changes})


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda model: malmm_cli.ask(SAMPLE, None, model=model), "questions must be a list"),
        (
            lambda model: malmm_cli.ask(SAMPLE, ["what?", 3], model=model),
            "questions must be a list",
        ),
        (lambda model: malmm_cli.ask(None, "what?", model=model), "video must be a path, not None"),
        (lambda model: malmm_cli.remember(3, model), "video must be a path, not 3"),
        (lambda model: malmm_cli.watch(SAMPLE, "what?", model), "prompts must be a list"),
        (lambda _: malmm_cli.batch.run(None, "x.jsonl"), "inputs must be paths"),
        (lambda _: malmm_cli.batch.run(SAMPLE, None), "no output given: output is missing"),
        (lambda _: malmm_cli.batch.run(SAMPLE, 3), "output must be a path"),
        (
            lambda _: malmm_cli.batch.run(SAMPLE, "x.jsonl", worker=2),
            r"batch.run\(\) has no setting 'worker'; did",
        ),
        (lambda _: malmm_cli.batch.run(SAMPLE, "x.jsonl", workers=0), "workers must be at least 1"),
        (lambda _: malmm_cli.batch.run(SAMPLE, "x.jsonl", retry="1"), "retry must be an integer"),
        (lambda _: malmm_cli.batch.run(SAMPLE, "x.jsonl", timeout=-1), "timeout must be above 0"),
        (lambda _: malmm_cli.batch.run(SAMPLE, "x.jsonl", questions=3), "questions must be a list"),
        (lambda _: malmm_cli.batch.run(SAMPLE, "x.jsonl", limits=3), "limits must be Limits"),
        (lambda _: malmm_cli.batch.run(SAMPLE, "x.jsonl", listed=3), "listed must be paths"),
        (lambda _: malmm_cli.batch.run(SAMPLE, "x.jsonl", cache=3), "cache must be a path or None"),
        (lambda model: malmm_cli.watch(SAMPLE, None, model), "prompts must be a list"),
        (lambda model: malmm_cli.watch(SAMPLE, [3], model), "prompts must be a list"),
        (
            lambda model: malmm_cli.caption(SAMPLE, model=model, settings=Settings(prompt=3)),
            "prompt must be text, not 3",
        ),
        (
            lambda model: malmm_cli.caption(SAMPLE, model=model, settings=Settings("?", None)),
            "settings.sampling must be Sampling, not None",
        ),
        (lambda model: malmm_cli.evaluate.run(3, model=model), "data must be a path, not 3"),
        (
            lambda model: malmm_cli.evaluate.run("x", model=model, predictions=3),
            "predictions must be a path or None, not 3",
        ),
        (lambda model: malmm_cli.evaluate.ablate("x", model=model, folder=3), "folder must be a"),
        (lambda _: malmm_cli.train.run("x", None), "folder must be a path, not None"),
        (lambda _: malmm_cli.train.run("x", "y", validation=3), "validation must be a path"),
    ],
)
def test_a_wrong_argument_of_other_calls_is_named(model, here, call, says):
    with pytest.raises(UsageError, match=says):
        call(model)
    assert {path.name for path in here.iterdir()} == {"broken.mp4"}


def test_numbers_without_a_fraction_are_numbers():
    assert changed(ASK, fps=1, temperature=2).decoding.temperature == 2


def test_a_batch(here, t5_folder):
    events, how = Recorded(), {"model": str(t5_folder), **FEW}
    inputs = [SAMPLE, "broken.mp4"]
    planned = malmm_cli.batch.dry_run(inputs, "out.jsonl", limit=1, **how)
    assert [why for _, why, exists in planned.todo if exists] == ["new"]
    assert (planned.items, planned.limited, planned.seconds) == (2, 1, None)
    summary = malmm_cli.batch.run(inputs, "out.jsonl", events=events, **how)
    assert (summary.todo, summary.done, summary.failed, summary.complete) == (2, 1, 1, False)
    assert summary.kinds == {"NotAVideo": 1}
    assert list(summary.errors) == ["broken.mp4"]
    assert summary.paths.results == Path("out.jsonl")
    assert [result.video for result in events.results] == [str(SAMPLE)]
    assert [type(error) for error in events.errors] == [MediaError]
    assert events.counts == [(1, 2), (2, 2)]
    assert events.stages == ["batch, items"]
    again = malmm_cli.batch.run(SAMPLE, Path("out.jsonl"), **how)
    assert (again.todo, again.done_before, again.complete) == (0, 1, True)
    assert len(Path("out.jsonl").read_text().splitlines()) == 2


def test_a_batch_of_questions(here, t5_folder):
    how = {"model": str(t5_folder), "questions": "what?", "prompt": "Q: {} A:", **FEW}
    assert malmm_cli.batch.run(SAMPLE, "out.jsonl", **how).done == 1
    (line,) = map(json.loads, Path("out.jsonl").read_text().splitlines())
    assert (line["question"], line["prompt"]) == ("what?", "Q: what? A:")


def test_an_interrupted_batch_says_where_it_is(here, t5_folder):
    class Stopping(Recorded):
        def finished(self, result):
            raise KeyboardInterrupt

    events, how = Stopping(), {"model": str(t5_folder), **FEW}
    with pytest.raises(KeyboardInterrupt):
        malmm_cli.batch.run(SAMPLE, "out.jsonl", events=events, **how)
    assert events.interruptions == ["finished items are in out.jsonl; make the same call to resume"]
    assert malmm_cli.batch.run(SAMPLE, "out.jsonl", **how).done_before == 1


def test_an_evaluation(here, model):
    events = Recorded()
    data = write_tasks(videos=[SAMPLE, here / "broken.mp4"])
    found = malmm_cli.evaluate.run(data, model=lambda: model, events=events, **FEW)
    assert (found.scores["tasks"], found.scores["failed"]) == (2, 1)
    assert found.path == Path("tasks.predictions.jsonl")
    assert [prediction.id for prediction in found.predictions] == ["0", "1"]
    assert len(events.timings) == len(events.errors) == 1
    assert events.counts == [(1, 2), (2, 2)]
    assert found.as_dict()["questions"]["frames"] == 2
    with pytest.raises(UsageError, match="with memory=1, not 2"):
        malmm_cli.evaluate.run(data, model=model, **{**FEW, "memory": 2})


def test_nothing_is_loaded_for_data_that_will_not_do(here):
    def load():
        raise AssertionError

    with pytest.raises(UsageError, match="no task has 'choices'"):
        malmm_cli.evaluate.run(write_tasks(), model=load, choices=True)


def test_a_training(here, vicuna_folder):
    events = Recorded()
    folder = malmm_cli.train.run(
        *(str(write_tasks()), "trained"),
        model=str(vicuna_folder),
        recipe=malmm_cli.train.Recipe(steps=2, batch_size=1),
        events=events,
        frames=2,
        memory=1,
    )
    assert (folder / "config.json").exists()
    stages = ["checking, videos", "download, bytes", "encoding, videos", "training, steps"]
    assert events.stages == stages
    assert events.counts == [(1, 1), (1, 1), (1, 2), (2, 2)]
    assert "trained is a model" in events.notes[-1]
