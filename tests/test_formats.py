"""Results in every form, in files and on stdout, each read back by a reader of that form."""

import csv
import errno
import io
import json
import os
import stat
from pathlib import Path

import pytest
from helpers.commands import FAST, SAMPLE

from malmm_cli.errors import OutputError, UsageError
from malmm_cli.files.atomic import new_folder, writing
from malmm_cli.files.jsonl import open_lines
from malmm_cli.formats import (
    FORMATS,
    Failure,
    check_new_folder,
    check_writable,
    format_whole,
    open_whole,
)
from malmm_cli.types import Result, Segment


def result(video="a.mp4", text="a cat & a <dog>", question=None, start=0.0, end=3725.0625):
    return Result(
        video=video,
        task="ask" if question else "caption",
        prompt="what?",
        question=question,
        text=text,
        candidates=(text, "a cat"),
        segments=(Segment(start, end, text),),
        model="tiny",
        revision=None,
        device="cpu",
        dtype="float32",
        memory=20,
        policy="mbc",
        banks="both",
        frames=100,
        first=start,
        last=end,
        duration=end,
        seconds={"open": 0.123456},
    )


FAILED = Failure("b.mp4", "caption", UsageError("b.mp4: no such file", kind="Missing"))


# --- forms


def test_text():
    assert format_whole([result()], "text", several=False) == "a cat & a <dog>\n"
    two = [result(), FAILED, result("new\nline\t.mp4"), result(question="who\tis\nit?")]
    assert format_whole(two, "text", several=True).splitlines() == [
        "a.mp4\ta cat & a <dog>",
        "new line .mp4\ta cat & a <dog>",
        "who is it?\ta cat & a <dog>",
    ]


def test_tsv():
    text = format_whole([result(), FAILED, result(question="wh\to?")], "tsv", several=True)
    rows = list(csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert rows == [
        ["video", "start", "end", "question", "text", "error"],
        ["a.mp4", "0.000", "3725.062", "", "a cat & a <dog>", ""],
        ["b.mp4", "", "", "", "", "Missing: b.mp4: no such file"],
        ["a.mp4", "0.000", "3725.062", "wh o?", "a cat & a <dog>", ""],
    ]


def test_srt():
    assert format_whole([result(start=1.9996)], "srt", several=False) == (
        "1\n00:00:02,000 --> 01:02:05,062\na cat & a <dog>\n"
    )
    two = format_whole([result(), result(question="who?")], "srt", several=True)
    first, second = (cue.split("\n") for cue in two.split("\n\n"))
    assert (first[0], first[2:]) == ("1", ["a cat & a <dog>"])
    assert (second[0], second[2:]) == ("2", ["who?", "a cat & a <dog>", ""])


def test_vtt():
    assert format_whole([result()], "vtt", several=False) == (
        "WEBVTT\n\n00:00:00.000 --> 01:02:05.062\na cat &amp; a &lt;dog&gt;\n"
    )
    asked = format_whole([result(question="a\n--> b?")], "vtt", several=True)
    assert asked.splitlines()[3:] == ["a --&gt; b?", "a cat &amp; a &lt;dog&gt;"]


def test_json_is_a_list_where_several_were_asked_for_even_if_one_came():
    assert isinstance(json.loads(format_whole([result()], "json", several=False)), dict)
    (item,) = json.loads(format_whole([result()], "json", several=True))
    assert item["segments"] == [{"start": 0.0, "end": 3725.062, "text": "a cat & a <dog>"}]
    assert item["seconds"] == {"open": 0.123}


def test_failures_stand_in_place():
    lines = format_whole([result(), FAILED, result()], "jsonl", several=True).splitlines()
    assert json.loads(lines[1]) == {
        "schema": "malmm/1",
        "video": "b.mp4",
        "task": "caption",
        "error": {"kind": "Missing", "message": "b.mp4: no such file"},
    }
    assert "error" not in json.loads(lines[0])
    assert "error" not in json.loads(lines[2])


@pytest.mark.parametrize("form", FORMATS)
def test_files_hold_what_stdout_shows(malmm, tmp_path, form):
    def without_times(text):
        return [line for line in text.splitlines() if '"seconds"' not in line]

    shown = malmm("caption", SAMPLE, *FAST, "--format", form)
    path = tmp_path / f"result.{form.upper()}"  # a name tells the form, in either case
    written = malmm("caption", SAMPLE, *FAST, "-o", path)
    assert (shown.code, shown.err) == (0, "")
    assert (written.code, written.out, written.err) == (0, "", "")
    content = path.read_text("utf-8")
    if form == "json":
        shown, content = json.loads(shown.out), json.loads(content)
        assert shown.pop("seconds").keys() == content.pop("seconds").keys()
        assert shown == content
    else:
        assert without_times(content) == without_times(shown.out)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_subtitles_have_one_cue_over_the_range(malmm, form):
    done = malmm("caption", SAMPLE, *FAST, "--format", form, "--from=10", "--to=1:20")
    stamps = [line for line in done.out.splitlines() if "-->" in line]
    comma = "," if form == "srt" else "."
    assert stamps == [f"00:00:10{comma}000 --> 00:01:00{comma}000"]


def test_json_wins_over_the_name_of_the_file(malmm, tmp_path):
    path = tmp_path / "result.txt"
    malmm("caption", SAMPLE, *FAST, "--json", "-o", path)
    assert json.loads(path.read_text())["schema"] == "malmm/1"


# --- files


def test_a_file_that_exists_is_replaced_when_asked_and_not_before(malmm, tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("precious")
    assert malmm("caption", SAMPLE, *FAST, "-o", path).code == 2
    assert path.read_text() == "precious"
    assert malmm("caption", "nope.mp4", *FAST, "-o", path, "--overwrite").code == 2
    assert path.read_text() == "precious", "nothing to write, nothing to replace"
    assert malmm("caption", SAMPLE, *FAST, "-o", path, "--overwrite").code == 0
    assert path.read_text() != "precious"


def test_dash_is_stdout(malmm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert malmm("caption", SAMPLE, *FAST, "-o", "-") == malmm("caption", SAMPLE, *FAST)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="no named pipes here")
def test_a_pipe_is_written_to_and_never_replaced(malmm, tmp_path):
    path = tmp_path / "pipe"  # nothing under /dev: root could replace that if we were wrong
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    done = malmm("caption", SAMPLE, *FAST, "-o", path, "--overwrite")
    assert (done.code, done.err) == (0, "")
    assert path.is_fifo()
    assert os.read(reader, 10_000).decode() == malmm("caption", SAMPLE, *FAST).out
    os.close(reader)


def test_a_link_is_followed(tmp_path):
    (tmp_path / "link").symlink_to("file")
    with open_whole(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.skipif(os.name != "posix", reason="elsewhere it cannot be removed")
def test_a_working_folder_that_is_gone(malmm, tmp_path, monkeypatch):
    malmm("caption", SAMPLE, *FAST)  # libraries look at the working folder when they are imported
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    done = malmm("caption", SAMPLE, *FAST, "-o", "out.txt")
    assert (done.code, done.out) == (1, "a blue cross vanishes\n"), "the result is lost"
    error, hint = done.err.splitlines()
    assert error == "error: out.txt: cannot be written: No such file or directory"
    assert hint == "hint: the result is printed on stdout instead"


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "free up disk space, or choose another location"),
        (errno.EACCES, "choose another location"),
        (errno.EROFS, "choose another location"),
        (errno.EMFILE, "raise the limit, as with `ulimit -n 1024`"),
    ],
)
def test_the_hint_is_for_what_went_wrong(number, hint):
    with pytest.raises(OutputError) as caught, writing(Path("out.txt")):
        raise OSError(number, os.strerror(number))
    assert caught.value.hint == hint


def test_a_name_as_long_as_the_disk_takes(tmp_path):
    path = tmp_path / ("x" * 250)
    check_writable(path, overwrite=False)
    with open_whole(path) as file:
        file.write(b"1")
    assert path.read_bytes() == b"1"
    with pytest.raises(OutputError, match="cannot be written"):
        check_writable(tmp_path / ("x" * 300), overwrite=False)
    with pytest.raises(OutputError, match="cannot be written"):
        check_new_folder(tmp_path / ("x" * 300))


@pytest.mark.parametrize("form", ["file", "folder"])
def test_whole_or_not_at_all(tmp_path, form):
    path = tmp_path / "out"

    def write(*, fails):
        with open_whole(path) if form == "file" else new_folder(path) as place:
            if form == "file":
                place.write(b"half")
            else:
                (place / "half").touch()
            assert not path.exists()
            if fails:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(fails=True)
    assert not list(tmp_path.iterdir())
    write(fails=False)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        with open_whole(tmp_path / "file"):
            pass
        with new_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750


def test_lines_are_complete_even_when_the_disk_fills_up(tmp_path, monkeypatch):
    path = tmp_path / "lines.jsonl"

    def full(_):
        raise OSError(28, "No space left on device")

    with open_lines(path) as write:
        assert not path.exists(), "a file without a line says nothing"
        write("one\n")
        assert path.read_text() == "one\n"
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"lines\.jsonl: cannot be written: No space left"):
            write("two\n")
    assert path.read_text() == "one\n"


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_names_that_are_no_text_survive(malmm, tmp_path, monkeypatch, clip):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"caf\xe9.mp4")
    try:
        os.symlink(clip, name)
    except OSError:
        pytest.skip("this disk takes text alone")
    shown = malmm("caption", name, *FAST, "--json")
    assert (shown.code, json.loads(shown.out)["video"]) == (0, name)
    assert malmm("caption", name, *FAST, "-o", "out.json").code == 0
    assert json.loads((tmp_path / "out.json").read_text("utf-8"))["video"] == name
    assert malmm("batch", ".", *FAST, "-o", "out.jsonl").code == 0
    assert os.path.samefile(json.loads((tmp_path / "out.jsonl").read_text())["video"], name)
