"""`malmm batch --beside`: a file beside each video, with the promises of an output folder."""

import os
import shutil
from pathlib import Path

import pytest
from helpers.commands import SAMPLE

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
    assert "the name sub/deep/clip is taken" in done.err
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
    assert "0 of 0 items done, 3 done before" in done.err
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
        assert (done.code, "0 of 0 items done, 1 done before" in done.err) == (0, True), done.err


def test_another_format(malmm, tree):
    assert malmm(*RUN, "--format", "text").code == 0
    assert written(".txt") == ["clip.txt", "sub/deep/clip-2.txt", "sub/deep/clip.txt"]


def test_a_file_of_somebody_else_stays(malmm, refused, tree):
    Path("videos/clip.srt").write_text("my subtitles")
    says = "clip.srt: exists, and was not written by malmm"
    refused(*RUN, "-q", code=2, says=says, hint="use -o FOLDER/, or another --format")
    assert Path("videos/clip.srt").read_text() == "my subtitles"
    assert written() == ["clip.srt"]


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
