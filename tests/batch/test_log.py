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
    assert (lines[0], lines[-1]) == (("info", "started"), ("info", "ended"))
    malmm(*RUN)
    assert logged()[: len(lines)] == lines
    assert len(logged()) > len(lines)


def test_how_a_run_ends_is_logged(malmm, videos, monkeypatch):
    assert malmm("batch", "vidoes", *FAST, "-o", "out.jsonl", "--log", "run.log").code == 2
    assert logged()[-1] == ("error", "vidoes: no such file or folder")

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(answer, "caption", stop)
    assert malmm(*RUN).code == 130
    assert logged()[-1] == ("error", "interrupted")


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
