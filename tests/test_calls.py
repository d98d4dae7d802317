"""Public calls from Python: their arguments, and errors that speak of them."""

import inspect
import json
import pickle
import pydoc
import re
import subprocess
import sys
import typing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import SAMPLE
from PIL import Image

import malmm_cli
from malmm_cli.batch.runner import Options
from malmm_cli.calls import in_python, public
from malmm_cli.events import SILENT
from malmm_cli.pipeline import loading
from malmm_cli.settings import Changes

FEW = {"frames": 2, "beams": 1, "max_new_tokens": 3}
CALLS = {
    "ask": malmm_cli.ask,
    "caption": malmm_cli.caption,
    "frames": malmm_cli.frames,
    "load": malmm_cli.load,
    "remember": malmm_cli.remember,
    "watch": malmm_cli.watch,
    "batch.run": malmm_cli.batch.run,
    "batch.dry_run": malmm_cli.batch.dry_run,
    "evaluate.run": malmm_cli.evaluate.run,
    "evaluate.ablate": malmm_cli.evaluate.ablate,
    "train.run": malmm_cli.train.run,
}


@pytest.fixture(scope="module")
def tiny():
    return malmm_cli.load("tiny")


@pytest.fixture(scope="module")
def memory(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("memory") / "x.memory"
    malmm_cli.remember(SAMPLE, tiny, frames=3).write(path)
    return path


def refused(call, *positional, **named):
    with pytest.raises(malmm_cli.MalmmError) as caught:
        call(*positional, **named)
    return caught.value


@pytest.mark.parametrize("name", CALLS)
def test_every_call_refuses_an_unknown_keyword(name):
    error = refused(CALLS[name], "x", nothing=3)
    assert isinstance(error, malmm_cli.UsageError)
    assert isinstance(error, TypeError)
    assert error.message == f"{name}() has no setting 'nothing'"
    assert error.hint.startswith("known: ")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda tiny: malmm_cli.caption(SAMPLE, model=tiny, frame=3),
            "caption() has no setting 'frame'; did you mean 'frames'?",
        ),
        (
            lambda _: malmm_cli.load("tiny", dtyp="auto"),
            "load() has no setting 'dtyp'; did you mean 'dtype'?",
        ),
        (
            lambda tiny: tiny.settings("ask", frame=3),
            "settings() has no setting 'frame'; did you mean 'frames'?",
        ),
        (
            lambda _: malmm_cli.Settings("?", promt=3),
            "Settings() has no setting 'promt'; did you mean 'prompt'?",
        ),
        (
            lambda _: malmm_cli.Sampling(frame=3),
            "Sampling() has no setting 'frame'; did you mean 'frames'?",
        ),
        (lambda tiny: malmm_cli.caption(model=tiny), "caption(): missing a required argument"),
        (lambda _: malmm_cli.load("tiny", events=3), "events must be malmm_cli.Events, not 3"),
        (lambda _: malmm_cli.load(3), "name must be a model's name or its folder, not 3"),
        (lambda _: malmm_cli.load("tiny", dtype=3), "dtype must be text, not 3"),
        (
            lambda tiny: malmm_cli.caption(SAMPLE, model=tiny, frames="many"),
            "frames must be an integer or None, not 'many'",
        ),
    ],
)
def test_a_wrong_argument_is_a_type_error_too(tiny, call, says):
    error = refused(call, tiny)
    assert error.message.startswith(says)
    assert isinstance(error, malmm_cli.ArgumentError)
    assert isinstance(error, TypeError)


@pytest.mark.parametrize(
    ("changes", "says", "hint"),
    [
        ({"frames": 0}, "frames=0: must be at least 1", None),
        ({"memory": -1}, "memory=-1: must be at least 0", None),
        ({"max_new_tokens": 0}, "max_new_tokens=0: must be at least 1", None),
        ({"start": "abc"}, 'start="abc": give seconds or', None),
        ({"start": "0:1o"}, 'start="0:1o": give seconds or', None),
        ({"start": "1.2.3"}, 'start="1.2.3": give seconds or', None),
        ({"start": 100}, "start=100 s is past the end", None),
        ({"start": "1h2m"}, 'start="1h2m" is past the end', None),
        ({"start": "0:20", "end": "5s"}, 'end="5s" must come after start="0:20"', None),
        ({"max_frames": 3}, "max_frames needs fps", "use frames instead"),
        ({"frames": 3, "fps": 1}, "frames and fps exclude each other", "use only one of them"),
    ],
)
def test_errors_name_arguments(tiny, changes, says, hint):
    error = refused(malmm_cli.caption, SAMPLE, model=tiny, **changes)
    assert error.message.startswith(says)
    assert str(error) == error.message
    assert error.hint == hint
    over = refused(lambda: list(malmm_cli.watch(SAMPLE, ["?"], tiny, **changes)))
    assert over.message == error.message


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("use --decoder auto", 'use decoder="auto"'),
        ("--decoder auto reads it", 'decoder="auto" reads it'),
        ("use --policy mbc or fifo", 'use policy="mbc" or "fifo"'),
        ("--policy ward: not available", 'policy="ward": not available'),
        ("--model a/b can read it", 'model="a/b" can read it'),
        ("a smaller --memory or another --model", "a smaller memory or another model"),
        (
            "use --overwrite, or another file with -o",
            "use overwrite=True, or another file",
        ),
        (
            "give -o FILE.jsonl, -o FOLDER/ or --beside",
            'give output="FILE.jsonl", output="FOLDER/" or beside=True',
        ),
        ("or use -o FOLDER/", 'or use output="FOLDER/"'),
        ("--quantize makes them smaller", "quantize makes them smaller"),
        ("fits: --quantize 8bit --dtype float16", 'fits: quantize="8bit", dtype="float16"'),
        ("--temperature nan: no", "temperature=nan: no"),
        ("the prompt 'use --frames 8' is", "the prompt 'use --frames 8' is"),
        ("re-use the pre--release", "re-use the pre--release"),
    ],
)
def test_options_become_arguments(told, said):
    assert in_python(told) == said
    assert in_python(said) == said


def test_a_model_is_given_by_its_name_or_folder(tiny):
    due = malmm_cli.caption(SAMPLE, model=tiny, **FEW).text
    assert malmm_cli.caption(SAMPLE, model="tiny", **FEW).text == due
    assert malmm_cli.caption(SAMPLE, model=tiny.folder, **FEW).text == due
    (answer,) = malmm_cli.ask(SAMPLE, "what moves?", model="tiny", **FEW)
    assert answer.model == "tiny"


def test_no_model_is_loaded_for_a_call_that_will_not_do(monkeypatch, tmp_path):
    from malmm_cli.pipeline import given

    monkeypatch.setattr(given, "load", lambda *_, **__: pytest.fail("loaded"))
    assert refused(malmm_cli.caption, tmp_path / "none.mp4").kind == "Missing"
    assert "frames=0" in refused(malmm_cli.caption, SAMPLE, frames=0).message
    told = refused(malmm_cli.remember, SAMPLE, start="2:00").message
    assert told.startswith('start="2:00" is past the end')
    assert "question is empty" in refused(malmm_cli.ask, SAMPLE, " ").message
    assert "unknown model" in refused(malmm_cli.caption, SAMPLE, model="tinny").message


def test_a_memory_file_brings_its_model(memory):
    (answer,) = malmm_cli.ask(memory, "what moves?", beams=1)
    assert (answer.model, answer.frames) == ("tiny", 3)
    assert malmm_cli.caption(memory, beams=1, max_new_tokens=3).model == "tiny"


@pytest.mark.parametrize("changes", [{"frames": 8}, {"fps": 1}, {"start": 3}, {"memory": 4}])
def test_what_a_memory_file_has_fixed_is_refused(memory, changes):
    error = refused(malmm_cli.ask, memory, "what moves?", **changes)
    (name,) = changes
    assert error.message.startswith(f"{name}: {memory} is a memory file")
    assert "--" not in error.hint


def test_another_model_than_that_of_a_memory_file(memory):
    error = refused(malmm_cli.ask, memory, "?", model="vicuna-7b")
    due = "leave out model, or rebuild the file: malmm_cli.remember(video).write(file)"
    assert error.hint == due


def test_a_pattern_is_for_batches(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = refused(malmm_cli.caption, "*.mkv")
    assert error.hint == "malmm_cli.batch.run takes patterns"


def test_a_memory_file_is_no_video(memory, tiny):
    for call in (
        lambda: malmm_cli.remember(memory, tiny),
        lambda: malmm_cli.watch(memory, ["?"], tiny),
        lambda: malmm_cli.frames(memory),
    ):
        assert "memory file" in refused(call).message


def test_frames(tmp_path):
    seen = malmm_cli.frames(SAMPLE, frames=3, sheet=tmp_path / "a.png", dump=tmp_path / "all")
    assert [frame.seconds for frame in seen.frames] == [0.0, 30.0, 59.95]
    assert {(frame.width, frame.height) for frame in seen.frames} == {(320, 240)}
    assert sorted(path.name for path in (tmp_path / "all").iterdir())[-1] == "00002.png"
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.width > 320
    found = json.loads(json.dumps(seen.to_dict()))
    assert [frame["seconds"] for frame in found["frames"]] == [0.0, 30.0, 59.95]
    assert len(malmm_cli.frames(SAMPLE, start="0:10", end=12, fps=1).frames) == 3
    error = refused(malmm_cli.frames, SAMPLE, frames=3, sheet=tmp_path / "a.png")
    assert error.hint == "use overwrite=True, or choose another file"


def test_a_script_without_a_guard_is_told_once(tmp_path):
    code = f"""
import malmm_cli
print("begun")
try:
    malmm_cli.batch.run({str(SAMPLE)!r}, "out.jsonl", model="tiny", frames=2, workers=1)
except malmm_cli.UsageError as error:
    print(error.message, "|", error.hint)
"""
    (tmp_path / "script.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("begun") == 2, "once, and once more as the worker imported it"
    (told,) = [line for line in done.stdout.splitlines() if "|" in line]
    assert "starts workers" in told
    assert told.endswith('put the call below `if __name__ == "__main__":`')


@pytest.mark.parametrize("name", CALLS)
def test_an_editor_completes_every_argument(name):
    """Real parameters, or for type checkers keywords of a TypedDict."""
    call = CALLS[name]
    shown = inspect.signature(call).parameters.values()
    assert not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in shown)
    assert not any(parameter.annotation is inspect.Parameter.empty for parameter in shown)
    names = {parameter.name for parameter in shown}
    hints = typing.get_type_hints(call.__wrapped__)
    for parameter in inspect.signature(call.__wrapped__).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            (keywords,) = typing.get_args(hints[parameter.name])
            assert typing.is_typeddict(keywords)
            assert {*keywords.__annotations__} <= names


@pytest.mark.parametrize("name", CALLS)
def test_a_call_can_be_sent_to_another_process(name):
    assert pickle.loads(pickle.dumps(CALLS[name])) is CALLS[name]


def test_help_shows_keywords_by_name():
    text = pydoc.plain(pydoc.render_doc(malmm_cli.caption))
    assert "frames: int | None = <default>" in text
    assert " at 0x" not in text


def test_the_keywords_of_a_batch_are_those_of_a_caption_and_more():
    assert {*Changes.__annotations__} < {*Options.__annotations__}


def test_what_docstrings_name_is_exported():
    for name in malmm_cli.__all__:
        for word in re.findall(
            r"\b[A-Z]\w+Error\b|`([A-Z]\w+)`", inspect.getdoc(getattr(malmm_cli, name)) or ""
        ):
            assert not word or word in malmm_cli.__all__, f"{name} names {word}"
        for word in re.findall(
            r"\b[A-Z]\w+Error\b", inspect.getdoc(getattr(malmm_cli, name)) or ""
        ):
            assert word in malmm_cli.__all__ or word == "TypeError", f"{name} names {word}"


def test_paths_are_paths(tmp_path):
    assert isinstance(SAMPLE, Path)
    assert malmm_cli.batch.dry_run(SAMPLE, tmp_path / "x.jsonl", model=Path("tiny")).items == 1


def test_the_package_of_batches_is_a_call_too(tmp_path):
    """It is `batch.run`, for callers and for editors."""
    error = refused(malmm_cli.batch, "x", "out.jsonl", worker=2)
    assert error.message == "batch.run() has no setting 'worker'; did you mean 'workers'?"
    error = refused(malmm_cli.batch, tmp_path / "none.mp4", tmp_path / "out.jsonl", model="tiny")
    assert error.message.startswith(f"{tmp_path / 'none.mp4'}: no such file")
    assert inspect.signature(malmm_cli.batch) == inspect.signature(malmm_cli.batch.run)
    assert inspect.ismodule(malmm_cli.batch)


def test_a_batch_starts_workers_also_from_a_script_on_stdin(tmp_path):
    code = f"""
import malmm_cli
if __name__ == "__main__":
    print(malmm_cli.batch({str(SAMPLE)!r}, "out.jsonl", model="tiny", frames=2, beams=1).done)
"""
    done = subprocess.run(
        [sys.executable, "-"],
        cwd=tmp_path,
        input=code,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


@pytest.mark.parametrize("call", [malmm_cli.batch.run, malmm_cli.batch.dry_run, malmm_cli.load])
def test_a_loaded_model_where_a_name_is_wanted(tiny, call):
    named = {"name": tiny} if call is malmm_cli.load else {"model": tiny}
    if call is not malmm_cli.load:
        named |= {"inputs": SAMPLE, "output": "out.jsonl"}
    error = refused(call, **named)
    assert error.message.endswith("must be a model's name or its folder, not a Model object")
    assert isinstance(error, malmm_cli.ArgumentError)


def test_no_questions(tiny):
    error = refused(malmm_cli.ask, SAMPLE, [], model=tiny)
    assert error.message == "no question was given"
    assert "a question is empty" in refused(malmm_cli.ask, SAMPLE, ["?", " "], model=tiny).message


@pytest.mark.parametrize(
    ("path", "says", "hint"),
    [
        (3, "path must be a path, not 3", None),
        ("none/x.memory", "none/x.memory: no such folder: none", "create it first"),
        ("there", "there: exists", "use overwrite=True, or choose another file"),
        (".", ".: is a folder", "give a file name in that folder"),
    ],
)
def test_a_memory_file_that_cannot_be_written(tiny, tmp_path, monkeypatch, path, says, hint):
    kept = malmm_cli.remember(SAMPLE, tiny, frames=2)
    monkeypatch.chdir(tmp_path)
    Path("there").touch()
    error = refused(kept.write, path)
    assert (error.message, error.hint) == (says, hint)
    assert Path("there").stat().st_size == 0
    assert kept.write("there", overwrite=True) == Path("there").stat().st_size > 0
    assert kept.write(Path("new")) == Path("new").stat().st_size


def test_settings_that_a_memory_file_has_fixed_are_refused(memory, tiny):
    """Those of its making and the model's own defaults ask for nothing else."""
    for changes in ({"frames": 8}, {"memory": 4}, {"fps": 1}):
        settings = tiny.settings("ask", **changes)
        error = refused(malmm_cli.ask, memory, "what moves?", model=tiny, settings=settings)
        (name,) = changes
        assert error.message.startswith(f"{name}: {memory} is a memory file, and this was fixed")
    for changes in ({"frames": 3}, {"beams": 1}):
        settings = tiny.settings("ask", **changes)
        (answer,) = malmm_cli.ask(memory, "what moves?", model=tiny, settings=settings)
        assert answer.frames == 3


class Told(malmm_cli.Events):
    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)

    warn = interrupted = note

    def failed(self, error):
        self.lines.append(f"{error.message} | {error.hint}")

    def finished(self, result):
        self.lines.append(result.text)


def test_what_events_are_told_names_arguments():
    """Whatever a call reports; what is not a message stays as it is."""

    def call(*, events: malmm_cli.Events = SILENT):
        events.note("use --frames 8")
        events.warn("--memory 3: too small")
        events.interrupted("run the same command to resume")
        events.failed(malmm_cli.UsageError("--fps 0: must be more", hint="use --frames 8"))
        events.progress("--frames", 1, 2, "items")
        assert events.streams is wanted.streams
        with events.stage("--frames", "items"):
            pass

    wanted = Told()
    public(call)(events=wanted)
    assert wanted.lines == [
        *("use frames=8", "memory=3: too small", "make the same call to resume"),
        "fps=0: must be more | use frames=8",
    ]


@pytest.mark.parametrize("name", ["device", "dtype", "quantize", "offline"])
def test_how_a_model_runs_is_said_when_it_is_loaded(name):
    with pytest.raises(malmm_cli.ArgumentError) as caught:
        malmm_cli.caption("video.mp4", model="tiny", **{name: "cpu"})
    assert caught.value.message == f"caption() has no setting {name!r}"
    assert caught.value.hint == f"load() has it: model=malmm_cli.load(name, {name}=…)"


def test_numbers_of_numpy_are_numbers(tiny, tmp_path):
    named = {"frames": np.int64(4), "beams": np.uint8(1), "start": np.float64(1)}
    result = malmm_cli.caption(SAMPLE, model=tiny, end=np.float32(31), **named)
    assert json.loads(json.dumps(result.to_dict()))["frames"]["used"] == 4
    settings = tiny.settings("caption", **named)
    assert settings == tiny.settings("caption", frames=4, beams=1, start=1.0)
    assert type(settings.sampling.frames) is int
    made = malmm_cli.Sampling(frames=np.int64(4), end=np.float32(2))
    assert [type(value) for value in (made.frames, made.end)] == [int, float]
    planned = malmm_cli.batch.dry_run(SAMPLE, tmp_path / "x.jsonl", model="tiny", limit=np.int64(1))
    assert planned.items == 1
    error = refused(malmm_cli.caption, SAMPLE, model=tiny, frames=np.float64(4))
    assert error.message == "frames must be an integer or None, not 4.0"


@pytest.mark.parametrize(
    ("name", "meant"), [("from", "start"), ("from_", "start"), ("to", "end"), ("to_", "end")]
)
def test_times_are_called_start_and_end(tiny, name, meant):
    error = refused(malmm_cli.caption, SAMPLE, model=tiny, **{name: 3})
    assert error.message == f"caption() has no setting {name!r}; did you mean {meant!r}?"


@pytest.mark.parametrize(
    ("device", "says", "hint"),
    [
        ("gpu", "unknown device 'gpu'", "one of auto, cpu, cuda, cuda:0 … (NVIDIA, AMD), mps"),
        ("cuda:99", "device 'cuda:99' is not available", 'use device="auto" or '),
    ],
)
def test_a_device_that_is_not_there(device, says, hint):
    error = refused(malmm_cli.load, "tiny", device=device)
    assert error.message == says
    assert error.hint.startswith(hint)


def test_a_memory_that_was_not_written(tiny):
    kept = malmm_cli.remember(SAMPLE, tiny, frames=2)
    for call in (malmm_cli.caption, partial(malmm_cli.ask, questions="what?")):
        error = refused(call, kept, model=tiny)
        assert error.message == "video must be a path, not a MemoryFile object"
        assert error.hint == "write it first, and give that file: memory.write(file)"
    assert refused(malmm_cli.caption, 3, model=tiny).hint is None


@pytest.mark.parametrize("named", ["tiny", "loaded"])
def test_a_caption_has_no_place_for_a_question(tiny, named, monkeypatch):
    model = tiny
    if named == "tiny":
        model = "tiny"
        monkeypatch.setattr(loading, "load", None)  # which comes later
    for how in ({"settings": tiny.settings("ask")}, {"prompt": "Question: {} Answer:"}):
        error = refused(malmm_cli.caption, SAMPLE, model=model, **how)
        assert error.message.endswith("has {}, but a caption has no question to put there")
    kept = malmm_cli.remember(SAMPLE, tiny, settings=tiny.settings("ask", frames=2))
    assert kept.frames == 2, "no prompt is needed there"


def test_errors_of_a_summary_name_arguments(tmp_path, inline):
    (tmp_path / "--frames 8.mp4").write_text("x")
    videos = [SAMPLE, tmp_path / "--frames 8.mp4"]
    summary = malmm_cli.batch(videos, tmp_path / "x.jsonl", model="tiny", start=500)
    first, second = summary.errors.values()
    assert first.message.endswith("start=500 s is past the end of the video, at 60.00 s")
    assert "/--frames 8.mp4: not a video" in second.message
    assert "--from 500 s" in (tmp_path / "x.jsonl").read_text()


def test_parts_of_a_path_are_not_options():
    assert in_python("/videos/--frames 8/a.mp4: is empty") == "/videos/--frames 8/a.mp4: is empty"


@pytest.mark.parametrize(
    "name", ["a --frames 8.mp4", "a -o --memory 3: --overwrite.mp4", "a=1 b=2.mp4", "INPUT is one"]
)
def test_a_path_is_never_changed(tiny, tmp_path, monkeypatch, name):
    """Neither one that was given, as a text or a path, nor one that was found in a folder."""
    monkeypatch.chdir(tmp_path)
    for video in (name, Path(name), f"./{name}"):
        says = f"{video}: no such file"
        assert refused(malmm_cli.caption, video, model=tiny).message.startswith(says)
        error = refused(malmm_cli.batch, [video], "out.jsonl", model="tiny")
        assert error.message.startswith(says)
    Path("videos").mkdir()
    Path("videos", name).touch()
    told = Told()

    def call(inputs: str, *, events: malmm_cli.Events = SILENT):
        events.failed(malmm_cli.MediaError(f"{inputs}/{name}: is empty: --frames 0", hint="no"))

    public(call)("videos", events=told)
    assert told.lines == [f"videos/{name}: is empty: frames=0 | no"]


def test_a_traceback_has_the_hint():
    with pytest.raises(malmm_cli.MalmmError) as caught:
        malmm_cli.load("vicuna7b")
    assert caught.value.__notes__ == [f"hint: {caught.value.hint}"]


def test_a_question_in_the_place_of_the_video():
    with pytest.raises(malmm_cli.UsageError, match="no such file") as error:
        malmm_cli.ask("what moves?", str(SAMPLE), model="tiny")
    assert error.value.hint == "video comes first: malmm_cli.ask(video, questions)"
