"""What a batch says: about each item which it is, and about what it was given, all of it."""

import io
import os
import sqlite3

import pytest
from helpers.commands import FAST, SAMPLE
from helpers.events import Recorded

from malmm_cli.batch.inputs import find_tasks, find_videos
from malmm_cli.errors import CapacityError, OutputError, UsageError
from malmm_cli.media.sandbox import Limits, Sandbox

LOUD = FAST[:-1]


@pytest.fixture
def videos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["a.mp4", "b.mp4", "c.mp4"]
    for name in names:
        (tmp_path / name).symlink_to(SAMPLE)
    return names


def test_what_a_limit_leaves_is_said(malmm, videos):
    command = ("batch", *videos, *LOUD, "--limit=1", "-o", "out.jsonl")
    dry = malmm(*command, "--dry-run")
    assert "1 of 3 items to do, 2 more left by --limit" in dry.err
    assert "1 of 1 item done, 2 more left by --limit" in malmm(*command).err
    assert "left by" not in malmm("batch", *videos, *LOUD, "--limit=2", "-o", "out.jsonl").err


def test_a_failure_names_its_video_and_what_the_task_gave(malmm, videos, tmp_path):
    (tmp_path / "t.jsonl").write_text('{"id": 1, "video": "a.mp4", "from": 9999}')
    done = malmm("batch", "t.jsonl", *LOUD, "-o", "out.jsonl")
    assert done.code == 1
    told = [line for line in done.err.splitlines() if "past the end" in line]
    assert [line.split("s is")[0] for line in told] == ["error: a.mp4: 'from' 9999 "]


@pytest.mark.parametrize("number", [1, 20, 21, 45])
def test_failures_are_printed_once_and_of_many_the_first(malmm, tmp_path, monkeypatch, number):
    monkeypatch.chdir(tmp_path)
    names = [f"{k}.mp4" for k in range(number)]
    for name in names:
        (tmp_path / name).write_text("not a video")
    done = malmm("batch", ".", *LOUD, "-o", "out.jsonl", "--log", "run.log")
    assert done.code == 1
    told = [line for line in done.err.splitlines() if "not a video" in line]
    assert len(told) == len({*told}) == min(number, 20)
    assert all(line.startswith("error: ") for line in told)
    assert f"failed: {number} NotAVideo" in done.err
    more = "more failures are not shown here" in done.err
    assert more == ("listed in out.sqlite, table item" in done.err) == (number > 20)
    assert (tmp_path / "run.log").read_text().count(" error NotAVideo: ") == number


def test_quiet_failures_are_all_printed_and_nothing_else(malmm, tmp_path, monkeypatch):
    """No summary says where the others are."""
    monkeypatch.chdir(tmp_path)
    for k in range(25):
        (tmp_path / f"{k}.mp4").write_text("not a video")
    done = malmm("batch", ".", *FAST, "-o", "out.jsonl")
    told = done.err.splitlines()
    assert len({*told}) == len(told) == 25
    assert all(line.endswith(".mp4: not a video (unknown format)") for line in told)


def test_of_what_is_redone_the_limit_is_counted(malmm, videos):
    command = ("batch", *videos, *LOUD, "-o", "out.jsonl")
    assert malmm(*command).code == 0
    for limit, number in (("--limit=1", 1), ("--limit=9", 2)):
        done = malmm(*command, "--beams", "1", limit)
        assert f"results of other settings in out.jsonl, redone: {number}\n" in done.err


@pytest.mark.skipif(os.name != "posix", reason="limits are the system's")
@pytest.mark.parametrize("mebibytes", [64, 300])
def test_too_little_memory_to_decode(videos, mebibytes):
    sandbox = Sandbox(Limits(memory=mebibytes * 2**20))
    try:
        with pytest.raises(CapacityError, match="decoding needs more memory") as caught:
            sandbox.probe("a.mp4")
        assert "--max-memory" in caught.value.hint
    finally:
        sandbox.close()


def test_a_dry_run_obeys_no_name_and_shows_what_is_missing(malmm, videos, tmp_path, monkeypatch):
    (tmp_path / "\x1b[31m.mp4").symlink_to(SAMPLE)
    monkeypatch.setattr("sys.stdin", io.StringIO("gone.mp4\n"))
    done = malmm("batch", ".", "-", *LOUD, "-o", "out.jsonl", "--dry-run")
    assert "\x1b" not in done.out
    assert "\\x1b[31m.mp4\tnew\n" in done.out
    assert "gone.mp4\tnew, no such file\n" in done.out


def test_a_dry_run_leaves_nothing_and_shows_what_is_gone(malmm, videos, tmp_path):
    command = ("batch", "a.mp4", *LOUD, "-o", "out.jsonl")
    malmm(*command)
    (tmp_path / "a.mp4").unlink()
    before = sorted(tmp_path.iterdir())
    done = malmm(*command, "--dry-run")
    assert done.out == "a.mp4\tno such file, earlier result kept\n"
    assert sorted(tmp_path.iterdir()) == before


def test_a_prompt_without_a_place_for_the_question(refused, videos):
    options = ["--ask", "what?", "--prompt", "a video of", "-o", "out.jsonl"]
    refused("batch", *videos, *FAST, *options, code=2, says="has no {} where the question goes")


def test_inputs_that_add_nothing_are_named(videos, tmp_path):
    events = Recorded()
    (tmp_path / "empty").mkdir()
    assert find_videos(["*.mp4", "empty"], (), events) == videos
    assert events.warnings == ["no videos in empty"]


def test_a_list_may_begin_with_a_mark_of_its_encoding():
    assert find_videos(["-"], io.StringIO("\ufeffa.mp4\nb.mp4\n")) == ["a.mp4", "b.mp4"]


def test_patterns_of_files_of_tasks(videos, tmp_path):
    for number in (1, 2):
        (tmp_path / f"t{number}.jsonl").write_text(f'{{"id": {number}, "video": "a.mp4"}}')
    assert [task.id for task in find_tasks(["t*.jsonl"], (), (), tmp_path)] == ["1", "2"]
    with pytest.raises(UsageError, match=r"u\*\.jsonl"):
        find_tasks(["u*.jsonl"], (), (), tmp_path)


def test_half_a_character_in_a_question(refused, videos, tmp_path):
    (tmp_path / "t.jsonl").write_text('{"id": 1, "video": "a.mp4", "question": "\\ud800?"}')
    says = "t.jsonl: line 1: 'question' contains an unpaired surrogate"
    refused("batch", "t.jsonl", *FAST, "-o", "out.jsonl", code=2, says=says)


def test_a_refusal_leaves_nothing(refused, videos, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("mine")
    says = "a.txt: exists, and was not written by malmm"
    refused("batch", *videos, *FAST, "-o", "texts/", code=2, says=says)


def test_a_state_that_is_locked_needs_no_room(tmp_path):
    from malmm_cli.batch.state import State

    state = State(tmp_path / "out.sqlite")
    state._base.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(tmp_path / "out.sqlite")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OutputError, match="locked") as caught:
        state.begin(1)
    assert "close the program" in caught.value.hint
    other.close()
    state.close()
