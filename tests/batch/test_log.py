"""The log of a batch: every event with its time."""

import re
import shutil
from pathlib import Path

import pytest
from helpers.commands import FAST, SAMPLE

from malmm_cli.pipeline import answer

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (info|warning|error) (.+)")
RUN = ("batch", "videos", *FAST, "-o", "out.jsonl", "--log", "run.log")


@pytest.fixture
def videos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("videos").mkdir()
    shutil.copy(SAMPLE, "videos/a.mp4")
    Path("videos/b\n.mp4").write_text("not a video")


def logged():
    found = [LINE.fullmatch(line) for line in Path("run.log").read_text().splitlines()]
    assert all(found)
    return [line.groups() for line in found]


def test_every_event_is_appended_also_when_quiet(malmm, videos):
    done = malmm(*RUN, "--exclude", "none/")
    assert done.code == 1
    lines = logged()
    assert ("info", f"done: {Path('videos', 'a.mp4')}") in lines
    assert any(level == "error" and text.startswith("NotAVideo: ") for level, text in lines)
    assert ("warning", "--exclude none/: matches nothing in the input folders") in lines
    assert ("info", "2 of 2 items") in lines
    assert (lines[0], lines[-1]) == (("info", "started"), ("error", "ended, exit code 1"))
    assert ("info", "1 of 2 items done, 1 failed: out.jsonl") in lines[-6:]
    malmm(*RUN)
    assert logged()[: len(lines)] == lines
    again = logged()[len(lines) :]
    assert ("info", "nothing left to do, 1 done before: out.jsonl") in again
    assert ("info", "1 known failure skipped; --retry-failed tries again") in again
    assert again[-1] == ("info", "ended, exit code 0")


def test_one_item_is_no_items(malmm, videos):
    malmm("batch", "videos/a.mp4", *RUN[2:])
    assert ("info", "1 of 1 item") in logged()


@pytest.mark.parametrize("name", ["videos/a.mp4", "notes.txt", "videos/b\n.mp4", "spaces.txt"])
def test_what_is_not_a_log_is_left_alone(malmm, videos, name):
    Path("notes.txt").write_text("2026 was a good year\n")
    Path("spaces.txt").write_text("\n")
    before = Path(name).read_bytes()
    done = malmm("batch", "videos", *FAST, "-o", "out.jsonl", "--log", name)
    assert done.code == 2
    assert "exists and is not a log written by malmm" in done.err
    assert Path(name).read_bytes() == before
    assert not Path("out.jsonl").exists()


def test_an_empty_file_becomes_a_log(malmm, videos):
    Path("run.log").touch()
    malmm(*RUN)
    assert logged()[0] == ("info", "started")


def test_how_a_run_ends_is_logged(malmm, videos, monkeypatch):
    assert malmm("batch", "vidoes", *FAST, "-o", "out.jsonl", "--log", "run.log").code == 2
    failed, ended = logged()[-2:]
    assert failed == ("error", "vidoes: no such file or folder")
    assert ended == ("error", "ended, exit code 2")

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(answer, "caption", stop)
    assert malmm(*RUN).code == 130
    assert logged()[-2:] == [("error", "interrupted"), ("error", "ended, exit code 130")]


def test_a_log_that_cannot_be_written(malmm, videos):
    done = malmm(*RUN[:-1], "no/run.log")
    assert done.code == 2
    error, hint = done.err.splitlines()
    assert error == "error: no/run.log: no such folder: no"
    assert "free up" not in hint
    assert malmm(*RUN[:-1], "videos").code != 0


def test_what_needs_no_download_logs_none(malmm, videos):
    malmm(*RUN)
    assert not [text for _, text in logged() if "download" in text]
