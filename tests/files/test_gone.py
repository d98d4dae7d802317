"""What is written disappears or is changed in mid-run: that is told, and the next run mends it."""

import os
import shutil
import sqlite3
import time
from functools import partial
from pathlib import Path

import pytest
from helpers.batches import Actor, ids, inline, planned, run_batch
from helpers.commands import SAMPLE

from malmm_cli.batch.paths import OutputPaths
from malmm_cli.errors import OutputError
from malmm_cli.files.jsonl import open_lines
from malmm_cli.formats import open_whole
from malmm_cli.models.instructblip.model import InstructBlip

posix = pytest.mark.skipif(os.name != "posix", reason="elsewhere open files stay")


@pytest.fixture
def videos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [f"v{number}.mp4" for number in range(6)]
    for name in names:
        Path(name).write_text(f"the content of {name}")
    return names


def meddling(meddle, after, next_job):
    """An engine in this process; `meddle` happens when so many are on the disk."""
    actor, done = Actor(0.0, None), 0
    while job := next_job():
        yield job, actor(job)
        done += 1
        if done == after:
            wait_for_lines(done)
            meddle()


def wait_for_lines(number):
    """Until so many are noted in the state, which comes last."""
    end = time.monotonic() + 60
    while sum(known(path) for path in ("out.sqlite", "out/results.sqlite")) < number:
        assert time.monotonic() < end
        time.sleep(0.01)


def known(path):
    if not os.path.exists(path):
        return 0
    base = sqlite3.connect(path)
    try:
        return base.execute("SELECT count(*) FROM item WHERE status = 'done'").fetchone()[0]
    finally:
        base.close()


def replaced():
    os.rename("out.jsonl", "aside")
    Path("out.jsonl").write_bytes(Path("aside").read_bytes())


def to_a_link():
    os.rename("out.jsonl", "aside")
    os.symlink("nowhere", "out.jsonl")


def truncated():
    os.truncate("out.jsonl", 0)


def appended():
    with open("out.jsonl", "a") as file:
        file.write("mine\n")


def remove_state():
    for suffix in ("", "-wal", "-shm"):
        Path(f"out.sqlite{suffix}").unlink(missing_ok=True)


@posix
@pytest.mark.parametrize("after", [3, 6])
@pytest.mark.parametrize(
    ("meddle", "says"),
    [
        (lambda: os.unlink("out.jsonl"), "out.jsonl: removed or replaced"),
        (replaced, "out.jsonl: removed or replaced"),
        (truncated, "out.jsonl: was changed by another program"),
        (appended, "out.jsonl: was changed by another program"),
        (remove_state, "out.sqlite: removed or replaced"),
    ],
)
def test_an_output_that_goes_in_mid_run(videos, meddle, says, after):
    paths = OutputPaths(Path("out.jsonl"))
    with pytest.raises(OutputError, match=says) as caught:
        run_batch(paths, planned(videos), engine=partial(meddling, meddle, after))
    assert "run the same" in caught.value.hint
    if meddle is appended:  # which no run may remove
        lines = Path("out.jsonl").read_text().splitlines(keepends=True)
        Path("out.jsonl").write_text("".join(line for line in lines if line != "mine\n"))
    run_batch(paths, planned(videos), engine=inline)
    assert sorted(ids(paths.results)) == videos


@posix
@pytest.mark.parametrize("after", [3, 6])
def test_an_output_that_becomes_a_link(videos, after):
    engine = partial(meddling, to_a_link, after)
    with pytest.raises(OutputError, match=r"out\.jsonl: removed or replaced"):
        run_batch(OutputPaths(Path("out.jsonl")), planned(videos), engine=engine)
    assert not Path("nowhere").exists()


@posix
@pytest.mark.parametrize("after", [3, 6])
def test_an_output_folder_that_goes_in_mid_run(videos, after):
    paths = OutputPaths(Path("out/results.jsonl"), Path("out"), "text")
    engine = partial(meddling, lambda: shutil.rmtree("out"), after)
    with pytest.raises(OutputError, match=r"removed or replaced|cannot be written"):
        run_batch(paths, planned(videos), engine=engine)
    run_batch(paths, planned(videos), engine=inline)
    assert sorted(ids(paths.results)) == videos
    assert {path.name for path in Path("out").glob("*.txt")} == {f"v{k}.txt" for k in range(6)}


@posix
def test_files_of_a_folder_that_go_in_mid_run_are_written_again(videos):
    paths = OutputPaths(Path("out/results.jsonl"), Path("out"), "text")
    engine = partial(meddling, lambda: os.unlink("out/v1.txt"), 4)
    assert run_batch(paths, planned(videos), engine=engine).done == 6
    assert {path.name for path in Path("out").glob("*.txt")} == {f"v{k}.txt" for k in range(6)}


@posix
def test_what_a_killed_run_left_is_removed_by_the_next(videos):
    from malmm_cli.files.atomic import temporary

    paths = OutputPaths(Path("out/results.jsonl"), Path("out"), "text")
    Path("out").mkdir()
    left = [temporary(Path("out", name)) for name in ("v1.txt", "results.jsonl")]
    foreign = [Path("out/.v1.txt.new"), Path("out/.malmm-mine"), temporary(Path("out/mine"))]
    for path in (*left, *foreign):
        path.write_text("half")
    run_batch(paths, planned(videos), engine=inline)
    assert not any(path.exists() for path in left)
    assert all(path.read_text() == "half" for path in foreign)


@posix
@pytest.mark.parametrize("how", ["removed", "replaced", "truncated"])
def test_lines_that_go(tmp_path, how):
    path = tmp_path / "lines.jsonl"
    meddle = {
        "removed": path.unlink,
        "replaced": lambda: (path.rename(tmp_path / "aside"), path.write_text("one\n")),
        "truncated": lambda: os.truncate(path, 1),
    }[how]

    def write_two():
        with open_lines(path) as write:
            write("one\n")
            meddle()
            write("two\n")

    with pytest.raises(OutputError, match=r"lines\.jsonl: .* while being written"):
        write_two()
    assert "two" not in (path.read_text() if path.exists() else "")


@posix
def test_lines_that_go_at_the_end(tmp_path):
    path = tmp_path / "lines.jsonl"

    def write_one():
        with open_lines(path) as write:
            write("one\n")
            path.unlink()

    with pytest.raises(OutputError, match="removed or replaced"):
        write_one()


@posix
def test_a_folder_that_goes_while_a_result_is_made(malmm, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    before = InstructBlip.generate

    def generate(*arguments, **options):
        shutil.rmtree(folder)
        return before(*arguments, **options)

    monkeypatch.setattr(InstructBlip, "generate", generate)
    quick = ("--model", "tiny", "--frames", "2", "--max-new-tokens", "2", "-q")
    done = malmm("caption", SAMPLE, *quick, "-o", folder / "out.txt")
    assert done.code == 1
    assert f"error: {folder}/out.txt: cannot be written: No such file" in done.err


def test_a_disk_that_is_full_at_the_end_leaves_nothing(tmp_path):
    """Some tell of it only when the file is closed."""

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self.file

        def __exit__(self, *_):
            self.file.close()
            raise OSError(28, "No space left on device")

    import builtins

    real = builtins.open
    path = tmp_path / "out"
    path.write_text("before")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.open", lambda *a, **k: Full(real(*a, **k)))
        with pytest.raises(OutputError, match="No space left"), open_whole(path) as file:
            file.write(b"half")
    assert os.listdir(tmp_path) == ["out"]
    assert path.read_text() == "before"


@posix
def test_predictions_that_go(malmm, tmp_path, monkeypatch):
    from malmm_cli.evaluate import predictions

    path = tmp_path / "p.jsonl"
    tasks = tmp_path / "tasks.jsonl"
    line = '{{"id": "{}", "video": "{}", "question": "what?", "answer": "a"}}\n'
    tasks.write_text("".join(line.format(k, SAMPLE) for k in range(3)))
    made = []
    before = predictions.Prediction

    def prediction(*arguments, **values):
        made.append(path.exists() and path.unlink())
        return before(*arguments, **values)

    monkeypatch.setattr("malmm_cli.evaluate.predict.Prediction", prediction)
    quick = ("--model", "tiny", "--frames", "2", "--max-new-tokens", "2", "-q")
    done = malmm("eval", tasks, *quick, "--predictions", path)
    assert made
    assert (done.code, done.out) == (1, "")
    assert "p.jsonl: removed or replaced while being written" in done.err


@posix
@pytest.mark.parametrize("gone", ["videos/00000.mp4", "events.jsonl"])
def test_what_synth_made_goes(malmm, tmp_path, monkeypatch, gone):
    from malmm_cli.datasets.synthetic import dataset

    world = tmp_path / "world"
    before = dataset.task_as_json  # comes last

    def task_as_json(task):
        (world / gone).unlink(missing_ok=True)
        return before(task)

    monkeypatch.setattr(dataset, "task_as_json", task_as_json)
    command = ("synth", world, "--videos", "1", "--minutes", "0.4", "-q")
    done = malmm(*command)
    assert done.code == 1
    assert f"error: {world / gone}: removed or replaced while being written" in done.err
    monkeypatch.setattr(dataset, "task_as_json", before)
    assert malmm(*command).code == 0
    assert (world / gone).exists()


def test_the_log_of_a_training_that_goes(malmm, tmp_path, monkeypatch, vicuna_folder):
    from malmm_cli.train import learner

    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(f'{{"id": "1", "video": "{SAMPLE}", "question": "what?", "answer": "a"}}\n')
    log = tmp_path / "model" / "training" / "log.jsonl"
    before = learner.Learner.step

    def step(self, number, samples):
        if number == 1:
            log.unlink()
        return before(self, number, samples)

    monkeypatch.setattr(learner.Learner, "step", step)
    how = ("--steps", "3", "--save-every", "1", "--batch-size", "1", "--frames", "2", "-q")
    command = ("train", tasks, "-o", tmp_path / "model", "--model", vicuna_folder, *how)
    done = malmm(*command)
    assert done.code == 1
    assert "log.jsonl: removed or replaced while being written" in done.err
    monkeypatch.setattr(learner.Learner, "step", before)
    assert malmm(*command).code == 0
    assert (tmp_path / "model" / "config.json").exists()


@posix
def test_a_cache_that_goes_costs_a_warning(malmm, tmp_path, monkeypatch):
    from malmm_cli.pipeline import feature_files

    folder = tmp_path / "cache"
    before = feature_files.Writer.add

    def add(self, *arguments):
        shutil.rmtree(folder, ignore_errors=True)
        return before(self, *arguments)

    monkeypatch.setattr(feature_files.Writer, "add", add)
    quick = ("--model", "tiny", "--frames", "2", "--max-new-tokens", "2")
    done = malmm("caption", SAMPLE, *quick, "--cache", folder)
    assert done.code == 0
    assert "features are not cached" in done.err
    assert done.out


@posix
@pytest.mark.parametrize("before", ["empty", "results"])
def test_an_output_with_another_name_leaves_that_file_alone(videos, before):
    paths = OutputPaths(Path("out.jsonl"))
    paths.results.touch()
    if before == "results":
        run_batch(paths, planned(videos[:3]), engine=inline)
    Path("snapshot").hardlink_to(paths.results)
    content = Path("snapshot").read_bytes()
    run_batch(paths, planned(videos), engine=inline)
    assert sorted(ids(paths.results)) == videos
    assert Path("snapshot").read_bytes() == content
