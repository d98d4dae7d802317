"""`malmm batch --beside`: a file beside each video, with the promises of an output folder."""

import json
import os
import shutil
from pathlib import Path

import pytest
from helpers.commands import SAMPLE

from malmm_cli.batch import worker

FAST = ("--model", "tiny", "--frames", "4", "--beams", "1")
RUN = ("batch", "videos", *FAST, "--beside")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("clip.mp4", "sub/deep/clip.mp4", "sub/deep/clip.mkv"):
        Path("videos", name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SAMPLE, Path("videos", name))
    return tmp_path


def written(suffix=".srt"):
    return sorted(p.relative_to("videos").as_posix() for p in Path("videos").rglob(f"*{suffix}"))


def test_each_video_gets_its_file(malmm, tree):
    done = malmm(*RUN)
    assert done.code == 0, done.err
    assert written() == ["clip.srt", "sub/deep/clip-2.srt", "sub/deep/clip.srt"]
    assert Path("videos/clip.srt").read_text().startswith("1\n00:00:00,000 --> ")
    took = "videos/sub/deep/clip-2.srt: videos/sub/deep/clip.srt is taken"
    assert f"videos/sub/deep/clip.mp4 goes to {took}" in done.err
    assert sorted(p.name for p in Path("videos").glob(".*")) == [
        *(".malmm-batch.jsonl", ".malmm-batch.lock", ".malmm-batch.sqlite"),
    ]


def test_a_rerun_does_what_is_missing(malmm, tree):
    malmm(*RUN)
    times = {name: Path("videos", name).stat().st_mtime_ns for name in written()}
    shutil.copy(SAMPLE, "videos/new.mp4")
    Path("videos/sub/deep/clip.srt").unlink()
    done = malmm(*RUN)
    assert "1 of 1 item done, 3 done before" in done.err
    assert written() == ["clip.srt", "new.srt", "sub/deep/clip-2.srt", "sub/deep/clip.srt"]
    assert Path("videos/clip.srt").stat().st_mtime_ns == times["clip.srt"]


def test_the_folder_may_be_moved_and_named_otherwise(malmm, tree, monkeypatch):
    malmm(*RUN)
    Path("videos").rename("archive")
    done = malmm("batch", tree / "archive", *FAST, "--beside")
    assert "nothing left to do, 3 done before" in done.err
    monkeypatch.chdir("archive")
    assert "3 done before" in malmm("batch", ".", *FAST, "--beside").err
    assert "1 done before" in malmm("batch", "clip.mp4", *FAST, "--beside").err
    assert "3 done before" in malmm("batch", "**/*.m*", *FAST, "--beside").err


@pytest.mark.parametrize("form", ["srt", "jsonl"])
def test_files_it_wrote_are_no_inputs(malmm, tree, form):
    """A shell's `videos/*.*` names them all; so does the pattern itself."""
    form = ("--format", form)
    malmm("batch", "videos/clip.mp4", *FAST, "--beside", *form)
    named = sorted(str(path) for path in Path("videos").glob("clip.*"))
    assert len(named) == 2
    for inputs in (named, ["videos/*.*"]):
        done = malmm("batch", *inputs, *FAST, "--beside", *form)
        assert (done.code, "nothing left to do, 1 done before" in done.err) == (0, True), done.err


def test_another_format(malmm, tree):
    assert malmm(*RUN, "--format", "text").code == 0
    assert written(".txt") == ["clip.txt", "sub/deep/clip-2.txt", "sub/deep/clip.txt"]


def test_only_the_name_of_its_own_results_is_reserved(malmm, tree):
    for name in ("results", ".malmm-batch"):
        shutil.copy(SAMPLE, f"videos/{name}.mp4")
    given = ("videos/results.mp4", "videos/.malmm-batch.mp4")
    run = ("batch", *given, *FAST, "--beside", "--format", "jsonl")
    assert malmm(*run).code == 0
    assert written(".jsonl") == [".malmm-batch-2.jsonl", ".malmm-batch.jsonl", "results.jsonl"]
    assert "nothing left to do, 2 done before" in malmm(*run).err


def lines():
    return {
        line["id"]: line.get("error", {}).get("kind")
        for line in map(json.loads, Path("videos/.malmm-batch.jsonl").read_text().splitlines())
    }


@pytest.fixture
def loads(monkeypatch):
    """The workers that were started, each with its model."""
    started, start = [], worker.start
    monkeypatch.setattr(worker, "start", lambda *given: started.append(1) or start(*given))
    return started


def test_a_file_of_somebody_else_stays_and_the_others_are_done(malmm, tree, loads):
    Path("videos/clip.srt").write_text("my subtitles")
    done = malmm(*RUN)
    assert done.code == 1
    says = "clip.mp4: videos/clip.srt: exists, and was not written by malmm"
    assert f"error: videos/{says}" in done.err
    assert "hint: remove it, or use -o FOLDER/ or another --format" in done.err
    assert "2 of 3 items done, 1 failed" in done.err
    assert "later runs skip these videos while such files are beside them" in done.err
    assert "run the same command" not in done.err
    assert Path("videos/clip.srt").read_text() == "my subtitles"
    assert written() == ["clip.srt", "sub/deep/clip-2.srt", "sub/deep/clip.srt"]
    assert lines()["clip.mp4"] == "OutputExists"
    assert len(loads) == 1

    again = malmm(*RUN)  # a known failure, as long as the file is there
    assert (again.code, len(loads)) == (0, 1)
    assert "nothing left to do, 2 done before" in again.err
    assert "1 known failure skipped" in again.err
    assert "is left as it is" not in again.err
    assert malmm(*RUN, "--dry-run").out == ""
    assert malmm(*RUN, "--retry-failed", "--retry", "2").code == 1
    assert Path("videos/clip.srt").read_text() == "my subtitles"
    assert len(loads) == 1

    Path("videos/clip.srt").unlink()
    assert malmm(*RUN).code == 0
    assert Path("videos/clip.srt").read_text().startswith("1\n")
    assert set(lines().values()) == {None}


def test_subtitles_that_come_during_the_run_stay(malmm, tree, monkeypatch):
    start = worker.start

    def slowly(*given):
        Path("videos/clip.srt").write_text("my subtitles")
        return start(*given)

    monkeypatch.setattr(worker, "start", slowly)
    done = malmm(*RUN)
    assert done.code == 1
    assert "videos/clip.srt: exists, and was not written by malmm" in done.err
    assert "2 of 3 items done, 1 failed" in done.err
    assert Path("videos/clip.srt").read_text() == "my subtitles"
    assert lines()["clip.mp4"] == "OutputExists"
    again = malmm(*RUN)
    assert (again.code, "1 known failure skipped" in again.err) == (0, True)


def test_subtitles_that_were_corrected_stay_when_the_video_changes(malmm, tree):
    malmm(*RUN)
    Path("videos/clip.srt").write_text("corrected")
    os.utime("videos/clip.mp4", (1, 1))
    done = malmm(*RUN)
    assert done.code == 1
    assert "videos/clip.srt: exists, and was not written by malmm" in done.err
    assert Path("videos/clip.srt").read_text() == "corrected"


def test_a_folder_that_cannot_be_written_to_fails_its_videos_only(malmm, tree, monkeypatch, loads):
    """Tests may run as root, who may write everywhere."""
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: "deep" not in str(path) and access(path, mode)
    )
    done = malmm(*RUN)
    assert done.code == 1
    assert "videos/sub/deep/clip.srt: the folder is not writable" in done.err
    assert written() == ["clip.srt"]
    assert malmm(*RUN).code == 1
    assert len(loads) == 1
    monkeypatch.setattr(os, "access", access)
    done = malmm(*RUN)
    assert "2 of 2 items done, 1 done before" in done.err
    assert done.code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["videos", "--beside", "-o", "out/"], "-o and --beside exclude each other"),
        (["videos"], "no output given"),
        (["videos", "--beside", "--overwrite"], "--overwrite and --beside exclude each other"),
        (["-", "--beside"], "--beside needs a folder, but - is a list"),
        (["tasks.jsonl", "--beside"], "--beside needs a folder, but tasks.jsonl is a list"),
        (["videos", "videos/sub", "--beside"], "--beside needs all videos below one folder"),
        (["nowhere/a.mp4", "--beside"], "nowhere/a.mp4: no such file or folder"),
        (["videos", "--beside", "--format", "doc"], "unknown format 'doc'"),
    ],
)
def test_what_is_refused(refused, tree, arguments, says):
    refused("batch", *arguments, "--model", "tiny", code=2, says=says, hint="")
    assert not written()
    assert not list(Path("videos").glob(".malmm*"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to(refused, tree):
    Path("videos").chmod(0o500)
    refused(*RUN, code=1, says="the folder is not writable", hint="")
