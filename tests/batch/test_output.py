"""What stands in the output, whatever happened before: the cases of docs/batch.md, one by one."""

import json
import os
import random
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import batches
from helpers.batches import ids, inline, planned, result, run_batch
from helpers.events import Recorded

from malmm_cli.batch import folder as folders
from malmm_cli.batch import ledger as ledgers
from malmm_cli.batch.files import Names
from malmm_cli.batch.lines import item_of, line_of
from malmm_cli.batch.paths import OutputPaths, output_paths
from malmm_cli.batch.plan import plan
from malmm_cli.batch.state import holder
from malmm_cli.errors import MalmmError, OutputError, UsageError
from malmm_cli.formats import Failure
from malmm_cli.models.instructblip.defaults import ASK, CAPTION
from malmm_cli.types import Task

HARNESS = Path(batches.__file__)


@pytest.fixture
def videos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [f"v{number}.mp4" for number in range(6)]
    for name in names:
        Path(name).write_text(f"the content of {name}")
    return names


@pytest.fixture
def out(videos):
    """A finished output of all videos."""
    run_batch(OutputPaths(Path("out.jsonl")), planned(videos), engine=inline)
    return OutputPaths(Path("out.jsonl"))


def state(question, path="out.sqlite"):
    base = sqlite3.connect(path)
    try:
        return base.execute(question).fetchall()
    finally:
        base.close()


def child(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(HARNESS), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, **options)


# --- lines


def test_a_line_is_read_back_as_it_was(tmp_path):
    item = result(Task("a", "a.mp4", "what?"))
    assert item_of(line_of(item, "a", "1-2-3", "s").encode()) == item
    failure = Failure("b.mp4", "caption", MalmmError("b.mp4: broken", kind="Broken"))
    again = item_of(line_of(failure, "b", None, "s").encode())
    assert (again.video, again.error.kind, again.error.message) == (
        *("b.mp4", "Broken", "b.mp4: broken"),
    )


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (lambda raw: raw[:-1], 1),
        (lambda raw: raw[:-200], 1),
        (lambda raw: raw + b'{"schema": "mal', 0),
        (lambda raw: raw + bytes(100), 0),
        (lambda raw: raw[:-50] + bytes(50), 1),
        (lambda raw: raw[: raw.index(b"\n") + 9], 5),
        (lambda raw: raw[:9], 6),
        (lambda raw: raw[:3000] + bytes(20) + raw[3020:], 1),
        (lambda raw: raw + raw[: raw.index(b"\n") + 1], 0),
        (lambda raw: b"", 6),
    ],
)
def test_damage_costs_the_lines_it_hit_and_no_more(videos, out, damage, lost):
    path = out.results
    path.write_bytes(damage(path.read_bytes()))
    tally = run_batch(out, planned(videos), engine=inline)
    assert tally.done == lost
    assert sorted(ids(path)) == videos
    assert path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize(
    "content",
    [
        b"my own notes\n",
        b'{"my": "own"}\n',
        b'{"schema": "malmm/1", "video": "a.mp4", "text": "of malmm caption"}\n',
        b"[]\n",
        b"PK\x03\x04 an archive",
    ],
)
def test_files_of_others_are_left_alone(videos, content):
    path = Path("out.jsonl")
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"out\.jsonl: line 1 is not a malmm batch result"):
        run_batch(OutputPaths(path), planned(videos), engine=inline)
    assert path.read_bytes() == content


def test_mutated_files_end_in_a_whole_output_or_a_refusal(videos, out):
    whole = out.results.read_bytes()
    chance = random.Random(7)
    outcomes = set()
    for _ in range(60):
        raw = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(raw))
            match chance.randrange(4):
                case 0:
                    raw[place] ^= 1 << chance.randrange(8)
                case 1:
                    del raw[place : place + chance.randrange(1, 400)]
                case 2:
                    raw[place:place] = chance.randbytes(chance.randrange(1, 40))
                case 3:
                    raw[place : place + 30] = bytes(30)
        out.results.write_bytes(raw)
        try:
            run_batch(out, planned(videos), engine=inline)
        except UsageError:
            assert out.results.read_bytes() == raw, "what is refused is not touched"
            outcomes.add("refused")
        else:
            found = ids(out.results)
            assert len(found) == len(set(found))
            assert set(videos) <= set(found)
            outcomes.add("whole")
    assert outcomes == {"refused", "whole"}


# --- the state


def test_the_state_is_made_again_from_the_output(videos, out):
    before = state("SELECT id, status, identity, settings FROM item ORDER BY id")
    assert len(before) == 6
    Path("out.sqlite").unlink()
    assert run_batch(out, planned(videos), engine=inline).done == 0
    assert state("SELECT id, status, identity, settings FROM item ORDER BY id") == before


@pytest.mark.parametrize("content", [b"no database, but long enough to be looked at" * 100, b""])
def test_a_damaged_state_is_put_aside(videos, out, content):
    Path("out.sqlite").write_bytes(content)
    assert run_batch(out, planned(videos), engine=inline).done == 0
    assert state("SELECT count(*) FROM item") == [(6,)]
    assert Path("out.sqlite.damaged").exists() == bool(content)


def test_the_state_of_others_is_left_alone(videos, out):
    Path("out.sqlite").unlink()
    base = sqlite3.connect("out.sqlite")
    base.execute("CREATE TABLE mine (a)")
    base.close()
    before = Path("out.sqlite").read_bytes()
    with pytest.raises(UsageError, match="is not a malmm batch state"):
        run_batch(out, planned(videos), engine=inline)
    assert Path("out.sqlite").read_bytes() == before


def test_the_state_says_why_and_how_often(videos):
    for word in ("kill", "fail"):
        Path(f"{word}-1.mp4").write_text(word)
    paths = OutputPaths(Path("out.jsonl"))
    run_batch(paths, planned(["kill-1.mp4", "v1.mp4", "fail-1.mp4"]), retry=1)
    found = state("SELECT id, status, tries, kind FROM item ORDER BY id")
    assert found == [
        ("fail-1.mp4", "failed", 2, "NotAVideo"),
        ("kill-1.mp4", "failed", 2, "Crashed"),
        ("v1.mp4", "done", 1, None),
    ]
    ((ended, done, failed, items),) = state("SELECT ended, done, failed, items FROM run")
    assert ended
    assert (done, failed, items) == (1, 2, 3)


# --- two runs


def test_a_second_run_is_refused_and_told_who_is_at_it(videos, tmp_path):
    first = child("out.jsonl", *videos, "--slow", "30", cwd=tmp_path)
    try:
        until(lambda: Path("out.jsonl").exists() or holder(Path("out.sqlite")) != "another run")
        with pytest.raises(UsageError) as refusal:
            run_batch(OutputPaths(Path("out.jsonl")), planned(videos), engine=inline)
    finally:
        first.kill()
        first.communicate()
    who = f"process {first.pid} on {socket.gethostname()}, since 20"
    assert f"out.jsonl: is being written by {who}" in refusal.value.message
    assert run_batch(OutputPaths(Path("out.jsonl")), planned(videos), engine=inline).done == 6, (
        "it is dead"
    )


def until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


# --- kill -9 and full disks


def test_kill_9_at_any_moment(videos, tmp_path):
    """Its long form is tests/stress/kill.py."""
    names = [f"n{number}.mp4" for number in range(60)]
    for name in names:
        Path(name).write_text(name)
    chance = random.Random(3)
    arguments = ["out.jsonl", *names, "--slow", "0.02", "--log", "log"]
    killed = 0
    for _ in range(4):
        run = child(*arguments, cwd=tmp_path)
        until(lambda run=run: run.poll() is not None or Path("out.sqlite").exists())
        time.sleep(chance.uniform(0.0, 0.6))
        killed += run.poll() is None
        run.kill()
        run.communicate()
        found = ids_of_whole_lines(Path("out.jsonl"))
        assert len(found) == len(set(found))
    assert killed >= 3
    last = child(*arguments, cwd=tmp_path)
    _, said = last.communicate(timeout=120)
    assert last.returncode == 0, said
    assert sorted(ids(Path("out.jsonl"))) == sorted(names)
    assert state("SELECT status, count(*) FROM item GROUP BY status") == [("done", 60)]
    began = Path("log").read_text().split()
    assert len(began) <= 60 + 3 * killed, "no more was done again than what was on its way"


def ids_of_whole_lines(path):
    raw = path.read_bytes() if path.exists() else b""
    return [json.loads(line)["id"] for line in raw[: raw.rfind(b"\n") + 1].splitlines()]


@pytest.mark.parametrize("size", [1_500, 40_000, 100_000])
def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(videos, tmp_path, size):
    """No file may grow beyond `size`, of those that a run writes at once."""
    resource = pytest.importorskip("resource", reason="no such limits")
    videos.extend(f"w{number}.mp4" for number in range(60))
    for name in videos[6:]:
        Path(name).write_text(name)

    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    run = child("out.jsonl", *videos, cwd=tmp_path, preexec_fn=small)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "cannot be written" in said or "disk" in said
    whole = ids_of_whole_lines(Path("out.jsonl"))
    assert len(whole) == (len(ids(Path("out.jsonl"))) if whole else 0), "no half lines"
    run_batch(OutputPaths(Path("out.jsonl")), planned(videos), engine=inline)
    assert sorted(ids(Path("out.jsonl"))) == sorted(videos)


def test_what_cannot_be_written_is_told_with_what_to_do(videos, out, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    Path("v0.mp4").write_text("another content")
    monkeypatch.setattr(os, "fsync", full)
    before = out.results.read_bytes()
    with pytest.raises(OutputError, match="No space left on device") as caught:
        run_batch(out, planned(videos), engine=inline)
    assert "run the same command" in caught.value.hint
    assert out.results.read_bytes() == before


def test_what_is_done_anew_is_set_aside_first(videos, out, monkeypatch):
    """A kill between the two finds it in both, a full disk in the output."""
    Path("v0.mp4").write_text("another content")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ledgers, "without", killed)
    with pytest.raises(KeyboardInterrupt):
        run_batch(out, planned(videos), engine=inline)
    assert state("SELECT id FROM replaced") == [("v0.mp4",)]
    assert sorted(ids(out.results)) == videos


# --- a folder of files


@pytest.fixture
def folder(videos):
    return output_paths("texts/")


def test_a_file_for_each_video(videos, folder):
    run_batch(folder, planned(videos), engine=inline)
    names = sorted(path.name for path in Path("texts").iterdir())
    assert names == [
        *("results.jsonl", "results.lock", "results.sqlite"),
        *(f"v{number}.txt" for number in range(6)),
    ]
    assert Path("texts/v1.txt").read_text() == "a text about v1.mp4, None\n"


def test_files_follow_from_the_lines(videos, folder):
    run_batch(folder, planned(videos), engine=inline)
    Path("texts/v1.txt").unlink()
    assert run_batch(folder, planned(videos), engine=inline).done == 0
    assert Path("texts/v1.txt").read_text() == "a text about v1.mp4, None\n"
    other = output_paths("texts/", "vtt")
    assert run_batch(other, planned(videos), engine=inline).done == 0, "another form costs no model"
    assert Path("texts/v2.vtt").read_text().startswith("WEBVTT")


def test_the_file_of_what_is_done_anew_goes_with_its_line(videos, folder):
    run_batch(folder, planned(videos), engine=inline)
    before = Path("texts/v1.txt").stat().st_mtime_ns
    Path("v0.mp4").rename("fail-0.mp4")
    Path("v1.mp4").write_text("another content")
    run_batch(folder, planned([*videos[1:], "fail-0.mp4"]), engine=inline)
    assert Path("texts/v1.txt").stat().st_mtime_ns > before
    assert Path("texts/v0.txt").exists(), "the result of a video that is not of this run"
    assert not Path("texts/fail-0.txt").exists()


def test_questions_of_a_video_share_its_file(videos, folder):
    tasks = [Task(f"{name}//{q}", name, q) for name in videos[:2] for q in ("who?", "where?")]
    run_batch(folder, plan(tasks[:3], CAPTION, ASK, {}), engine=inline)
    run_batch(folder, plan(tasks, CAPTION, ASK, {}), engine=inline)
    assert Path("texts/v1.txt").read_text().splitlines() == [
        "who?\ta text about v1.mp4, who?",
        "where?\ta text about v1.mp4, where?",
    ]


def test_collisions_are_resolved_and_said(videos, folder):
    for name in ("deep/v0.mp4", "deep/V1.avi", "Results.mp4"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(name)
    names = [*videos, "deep/v0.mp4", "Results.mp4"]
    events = Recorded()
    run_batch(folder, planned(names), engine=inline, events=events)
    assert Path("texts/v0-2.txt").read_text() == "a text about deep/v0.mp4, None\n"
    run_batch(folder, planned(["deep/V1.avi", *names]), engine=inline, events=events)
    assert events.notes == [
        "deep/v0.mp4 goes to texts/v0-2.txt: texts/v0.txt is taken",
        "Results.mp4 goes to texts/Results-2.txt: texts/Results.txt is reserved",
        "deep/V1.avi goes to texts/V1-2.txt: texts/V1.txt is taken",
    ]
    assert Path("texts/v0.txt").read_text() == "a text about v0.mp4, None\n", "names stay"
    assert Path("texts/V1-2.txt").read_text() == "a text about deep/V1.avi, None\n"


def test_names_that_are_one_on_some_disk_collide():
    names = Names({}, ())
    given = ("x/caf\u00e9.mp4", "y/cafe\u0301.mp4", "z/CAFE\u0301.mp4")
    assert [names.of(video)[4:] for video in given] == ["", "\u0301-2", "\u0301-3"]


@pytest.mark.skipif(os.name == "nt", reason="there are no such names")
def test_names_that_not_every_disk_takes_are_changed_and_said(videos, folder):
    names = ["10: a?.mp4", 'b "c"\n.mp4', "plain.mp4"]
    for name in names:
        Path(name).write_text(name)
    events = Recorded()
    run_batch(folder, planned(names), engine=inline, events=events)
    assert events.notes == [
        f"{name} goes to texts/{plain}.txt: not every file system allows its name"
        for name, plain in zip(names, ["10_ a_", "b _c__"], strict=False)
    ]
    run_batch(folder, planned(names), engine=inline, events=events)
    assert len(events.notes) == 2, "names that stay are not told again"


def test_of_many_changed_names_some_are_said(videos, folder):
    names = [f"{folder}/v0.mp4" for folder in range(30)]
    for name in names:
        Path(name).parent.mkdir()
        Path(name).write_text(name)
    events = Recorded()
    run_batch(folder, planned(names), engine=inline, events=events)
    assert len(events.notes) == 21
    assert events.notes[-1] == 'and 9 more: see "name" in texts/results.jsonl'


def test_files_of_others_in_the_folder_are_left_alone(videos, folder):
    Path("texts").mkdir()
    Path("texts/v3.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"v3\.txt: exists, and was not written by malmm"):
        run_batch(folder, planned(videos), engine=inline)
    assert Path("texts/v3.txt").read_text() == "mine"
    run_batch(folder, planned(videos), engine=inline, overwrite=True)
    assert Path("texts/v3.txt").read_text() == "a text about v3.mp4, None\n"
    run_batch(folder, planned(videos), engine=inline, overwrite=True)


def test_files_that_others_put_there_later_are_left_alone(videos, folder):
    run_batch(folder, planned(videos), engine=inline)
    Path("texts/v1.txt").write_text("corrected by hand")
    Path("texts/v2.srt").write_text("mine")
    events = Recorded()
    run_batch(folder, planned(videos), engine=inline, events=events)
    run_batch(
        output_paths("texts/", "srt"),
        planned(videos),
        engine=inline,
        events=events,
    )
    assert [line.split(":")[0] for line in events.warnings] == ["texts/v1.txt", "texts/v2.srt"]
    for kind, name in (("txt", "v1"), ("srt", "v2")):
        paths = output_paths("texts/", {"txt": "text"}.get(kind, kind))
        with pytest.raises(UsageError, match=rf"{name}\.{kind}: exists, and was not written"):
            run_batch(paths, planned(videos, model="another"), engine=inline)
    assert Path("texts/v1.txt").read_text() == "corrected by hand"
    assert Path("texts/v2.srt").read_text() == "mine"


def test_a_file_that_somebody_makes_during_the_run_stays(videos, folder):
    def engine(next_job):
        for job, outcome in inline(next_job):
            if job.video == "v1.mp4":
                Path("texts/v1.txt").write_text("mine")
            yield job, outcome

    events = Recorded()
    tasks = [Task(f"{name}//{q}", name, q) for name in videos[:3] for q in ("who?", "where?")]
    items = plan(tasks, CAPTION, ASK, {})
    tally = run_batch(folder, items, engine=engine, events=events)
    assert Path("texts/v1.txt").read_text() == "mine"
    assert (tally.done, tally.failed, tally.kinds) == (4, 2, {"OutputExists": 2})
    says = "v1.mp4: texts/v1.txt: exists, and was not written by malmm"
    assert [error.message for error in events.errors] == [says]
    assert [r.video for r in events.results] == ["v0.mp4", "v0.mp4", "v2.mp4", "v2.mp4"]
    assert len(Path("texts/v2.txt").read_text().splitlines()) == 2
    with pytest.raises(UsageError, match=r"v1\.txt: exists, and was not written by malmm"):
        run_batch(folder, items, engine=inline)
    Path("texts/v1.txt").unlink()
    assert run_batch(folder, items, engine=inline).done == 2


def test_even_in_the_last_moment(videos, folder, monkeypatch):
    """The result is in the lines then, and the file is treated as one that was changed."""
    write = folders.write_whole

    def late(path, *rest, **how):
        if path.name == "v1.txt":
            path.write_text("mine")
        write(path, *rest, **how)

    monkeypatch.setattr(folders, "write_whole", late)
    events = Recorded()
    assert run_batch(folder, planned(videos), engine=inline, events=events).done == 6
    assert Path("texts/v1.txt").read_text() == "mine"
    assert events.warnings == ["texts/v1.txt: is not what malmm wrote; it is left as it is"]
    assert run_batch(folder, planned(videos), engine=inline, events=events).done == 0
    assert Path("texts/v1.txt").read_text() == "mine"


def test_the_place_of_a_failure_may_be_taken(videos, folder):
    Path("fail-0.mp4").write_text("x")
    run_batch(folder, planned(["fail-0.mp4"]), engine=inline)
    Path("texts/fail-0.txt").write_text("my notes")
    with pytest.raises(UsageError, match="exists, and was not written by malmm"):
        run_batch(folder, planned(["fail-0.mp4"]), engine=inline)
    assert Path("texts/fail-0.txt").read_text() == "my notes"


def test_a_file_is_made_again_where_its_lines_are_ahead_of_it(videos, folder, monkeypatch):
    """As after a kill between the two."""
    tasks = [Task(f"v0.mp4//{q}", "v0.mp4", q) for q in ("who?", "where?")]
    items = plan(tasks, CAPTION, ASK, {})
    run_batch(folder, items[:1], engine=inline)

    def stop(*_, **__):
        raise OutputError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr("malmm_cli.batch.folder.write_whole", stop)
        with pytest.raises(OutputError, match="stopped"):
            run_batch(folder, items, engine=inline)
    assert len(Path("texts/v0.txt").read_text().splitlines()) == 1
    assert run_batch(folder, items, engine=inline).done == 0
    assert len(Path("texts/v0.txt").read_text().splitlines()) == 2


def test_files_of_another_form_follow_too(videos, folder):
    """A form that was left for a while is behind its lines."""
    run_batch(folder, planned(videos[:1]), engine=inline)
    srt = output_paths("texts/", "srt")
    tasks = [Task("v0.mp4", "v0.mp4", "who?")]
    run_batch(srt, plan(tasks, CAPTION, ASK, {}), engine=inline)
    assert run_batch(folder, plan(tasks, CAPTION, ASK, {}), engine=inline).done == 0
    assert Path("texts/v0.txt").read_text() == "a text about v0.mp4, who?\n"


def test_a_file_and_a_folder_are_not_mistaken(videos, folder):
    inside = OutputPaths(Path("texts/results.jsonl"))
    run_batch(folder, planned(videos), engine=inline)
    with pytest.raises(UsageError, match="was written as FOLDER/, with files"):
        run_batch(inside, planned(videos), engine=inline)
    run_batch(inside, planned(videos), engine=inline, overwrite=True)
    with pytest.raises(UsageError, match="was written as a single file"):
        run_batch(folder, planned(videos), engine=inline)


@pytest.mark.parametrize(
    "change",
    [
        *({"name": name} for name in ("../victim", "a/../b", "results", "", 7, "x" * 300, "a\0b")),
        *({"identity": 5}, {"video": 5}, {"frames": None}, {"text": 5}, {"segments": [1]}),
    ],
)
def test_lines_that_make_no_sense_are_refused(videos, folder, change):
    run_batch(folder, planned(videos), engine=inline)
    raw = folder.results.read_text().splitlines()
    folder.results.write_text(
        "\n".join([*raw[:-1], json.dumps({**json.loads(raw[-1]), **change})]) + "\n"
    )
    with pytest.raises(UsageError, match="line 6 is not a malmm batch result"):
        run_batch(folder, planned(videos), engine=inline)
    assert not Path("victim.txt").exists()


def test_one_output_by_two_names_is_one(videos, out):
    Path("link.jsonl").symlink_to("out.jsonl")
    paths = output_paths("link.jsonl")
    with out.locked(), pytest.raises(UsageError, match="is being written by"), paths.locked():
        pass


@pytest.mark.parametrize(
    ("video", "name"),
    [
        ("a/b.mp4", "b"),
        ("../../etc/passwd", "passwd"),
        ("...mp4", "..-2"),
        ("a\nb:c\\d.mp4", "a_b_c_d"),
        ("results.mp4", "results"),
        ("..", "..-2"),
        ("\x1b[31m.mp4", "_[31m"),
        (f"{'x' * 250}.mp4", f"{'x' * 191}-"),
    ],
)
def test_no_name_leads_out_of_the_folder(video, name):
    found = Names({}, ()).of(video)
    assert found.startswith(name)
    assert os.sep not in found
    assert len(os.fsencode(found)) <= 200
    assert os.path.dirname(os.path.normpath(os.path.join("folder", f"{found}.txt"))) == "folder"
