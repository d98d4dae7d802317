"""Outputs that another program makes, or that fill the disk, while a command works."""

import errno
import os
from pathlib import Path

import pytest
from helpers.commands import FAST, SAMPLE

from malmm_cli import media

QUIET = (*FAST[:4], "-q")


@pytest.fixture(autouse=True)
def other_program(monkeypatch, tmp_path):
    """Makes files as soon as a video is read."""
    monkeypatch.chdir(tmp_path)
    read = media.read

    def late(*given, **more):
        for name in ("out.txt", "out.json", "out.png", "out.memory"):
            Path(name).write_text("precious")
        return read(*given, **more)

    monkeypatch.setattr(media, "read", late)


@pytest.mark.parametrize("name", ["out.txt", "out.json"])
@pytest.mark.parametrize("command", [("caption", SAMPLE), ("ask", SAMPLE, "what?")])
def test_it_stays_and_the_result_is_printed(malmm, command, name):
    plain = malmm(*command, *FAST, "--format", Path(name).suffix[1:].replace("txt", "text"))
    Path(name).unlink()
    done = malmm(*command, *FAST, "-o", name)
    assert done.code == 1
    assert Path(name).read_text() == "precious"
    assert done.err.splitlines() == [
        f"error: {name}: exists; another program made it meanwhile",
        "hint: the result is printed on stdout instead",
    ]
    assert done.out[:9] == plain.out[:9]
    assert done.out


def test_a_sheet_of_frames(malmm):
    done = malmm("frames", SAMPLE, "-o", "out.png", "-q")
    assert done.code == 1
    assert Path("out.png").read_text() == "precious"
    assert "error: out.png: exists; another program made it meanwhile" in done.err


def test_a_memory_gets_another_name(malmm):
    done = malmm("remember", SAMPLE, *QUIET, "-o", "out.memory")
    assert done.code == 1
    assert Path("out.memory").read_text() == "precious"
    assert "error: out.memory: exists; another program made it meanwhile" in done.err
    assert "hint: the memory is in out-2.memory" in done.err
    assert malmm("ask", "out-2.memory", "what?", *FAST[4:]).code == 0


def test_it_is_replaced_where_that_was_allowed(malmm):
    for name, command, options in (
        ("out.txt", "caption", FAST),
        ("out.png", "frames", ("-q",)),
        ("out.memory", "remember", QUIET),
    ):
        assert malmm(command, SAMPLE, *options, "-o", name, "--overwrite").code == 0
        assert Path(name).read_bytes() != b"precious"


def test_a_full_disk_loses_no_result(malmm, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(os, "link", full)
    done = malmm("caption", SAMPLE, *FAST, "-o", "other.txt")
    assert done.code == 1
    assert "No space left" in done.err
    assert done.out.strip()
    assert not Path("other.txt").exists()
