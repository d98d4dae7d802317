"""Text that a terminal is given holds nothing that it would obey."""

import json
import os
import subprocess
import sys

import pytest
from helpers.commands import FAST, SAMPLE

from malmm_cli.files.escapes import for_terminal, on_one_line, to_json

BAD = "a\x1b]0;TITLE\x07b\x7f\x9b31m\u202ec\u2066\u200f\u061c\r"
ESCAPED = r"a\x1b]0;TITLE\x07b\x7f\x9b31m\u202ec\u2066\u200f\u061c\r"
GOOD = "naïve 日本語\u3000\u00a0 क्ष \u200d 👩\u200d🚀 ไทย\u200bไทย\t[red]x[/]\n"


def test_what_is_escaped():
    assert for_terminal(BAD) == ESCAPED
    assert for_terminal(GOOD) == GOOD
    assert for_terminal(ESCAPED) == ESCAPED
    assert on_one_line(f" {BAD}\n next") == ESCAPED.removesuffix(r"\r") + " next"
    assert for_terminal(os.fsdecode(b"caf\xe9")) == r"caf\udce9"


def test_json():
    told = to_json({BAD: [GOOD, BAD]}, indent=2)
    assert json.loads(told) == {BAD: [GOOD, BAD]}
    assert for_terminal(told) == told
    assert "日本語" in told


pytest_posix = pytest.mark.skipif(os.name != "posix", reason="terminals are POSIX's here")

RUN = """
import signal, sys
{setup}
from malmm_cli.__main__ import main
main()
"""

# Whatever writes, we ourselves or a library: its warnings hold names, too.
WARNS = """
import warnings
from malmm_cli.media import contact_sheet
look = contact_sheet.look
def warning(video, *arguments, **options):
    warnings.warn(video)
    return look(video, *arguments, **options)
contact_sheet.look = warning
"""


def on_terminal(*arguments, folder, setup="", columns=400):
    """What a command writes to a terminal, as bytes."""
    import pty

    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", RUN.format(setup=setup), *map(str, arguments)],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OMP_NUM_THREADS": "1",
            "TERM": "xterm",
            "COLUMNS": str(columns),
        },
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    told = b""
    try:
        while piece := os.read(main, 65536):
            told += piece
    except OSError:  # Linux says so of a terminal that nobody has open any more
        pass
    os.close(main)
    return process.wait(), told


NAME = "a\x1b]0;TITLE\x07\x9b31m\u202e[red].mp4"


def obeyed(told):
    return b"\x1b]0;TITLE" in told or b"\xc2\x9b" in told or "\u202e".encode() in told


@pytest.fixture
def folder(tmp_path):
    (tmp_path / NAME).symlink_to(SAMPLE)
    return tmp_path


@pytest_posix
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("caption", NAME, NAME, *FAST), 0),
        (("caption", NAME, NAME, *FAST, "--format", "tsv"), 0),
        (("caption", NAME, *FAST, "--format", "jsonl"), 0),
        (("ask", SAMPLE, f"who{NAME}?", "who?", *FAST, "--format", "vtt"), 0),
        (("caption", NAME, *FAST[:-1]), 0),  # with its bar
        (("frames", f"{NAME}.none"), 2),
        (("models", "info", f"x/{NAME}"), 2),
        ((f"{NAME}",), 2),
    ],
)
def test_names_on_a_terminal(folder, arguments, code):
    ended, told = on_terminal(*arguments, folder=folder)
    assert ended == code, told
    assert b"TITLE" in told
    assert not obeyed(told)


@pytest_posix
def test_warnings_of_libraries_on_a_terminal(folder):
    ended, told = on_terminal("frames", NAME, "--no-progress", folder=folder, setup=WARNS)
    assert ended == 0
    assert b"TITLE" in told
    assert not obeyed(told)


@pytest_posix
def test_cache_and_models_on_a_terminal(folder):
    cached = on_terminal("caption", NAME, *FAST, "--cache", "kept", folder=folder)
    assert cached[0] == 0
    for options in ((), ("--json",)):
        ended, told = on_terminal("cache", "ls", "--cache", "kept", *options, folder=folder)
        assert ended == 0
        assert b"TITLE" in told
        assert not obeyed(told)


@pytest_posix
def test_files_and_pipes_get_text_as_it_is(folder):
    done = subprocess.run(
        [sys.executable, "-m", "malmm_cli", "caption", NAME, NAME, *FAST],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert done.stdout.decode().startswith(f"{NAME}\t")
