"""What a terminal shows: messages stand above the bar, on lines of their own."""

import os

import pytest
from helpers.commands import SAMPLE
from helpers.screen import on_terminal, screen

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX's")

BEHIND_A_BAR = """
import sys, time
from malmm_cli.cli.colors import choose
from malmm_cli.cli.console import emit
from malmm_cli.cli.streams import open_streams
from malmm_cli.cli.terminal import Terminal
from malmm_cli.errors import MediaError

open_streams()
choose(sys.argv[1])
terminal = Terminal()
with terminal.stage("batch", "items"):
    for told in (
        lambda: terminal.note("tiny on cpu"),
        lambda: terminal.warn("words " * 30),
        lambda: terminal.failed(MediaError("a.mp4: no video", hint="try another")),
        lambda: emit("a result\\n"),
        lambda: print("from elsewhere", file=sys.stderr),
        lambda: terminal.interrupted("finished items are kept"),
    ):
        terminal.progress("batch", 1, 3, "items")
        time.sleep(0.15)
        told()
    with terminal.stage("loading", ""):
        terminal.note("inside")
terminal.note("after it")
"""


@pytest.mark.parametrize("color", ["always", "never", "auto"])
def test_messages_stand_above_the_bar(tmp_path, color):
    seen = on_terminal(BEHIND_A_BAR, color, folder=tmp_path)
    assert seen.code == 0, seen.text
    assert "━" in seen.text, "there was a bar"
    assert seen.lines == [
        "tiny on cpu",
        *["warning: words words words words words words words words words words words words"],
        *["words words words words words words words words words words words words words"],
        *["words words words words words"],
        "error: a.mp4: no video",
        "hint: try another",
        "a result",
        "from elsewhere",
        "finished items are kept",
        "inside",
        "after it",
    ]


HELD_UP = """
import ctypes, sys
from malmm_cli.processes import pulse
pulse.begin(sys.argv[1:], "utf-8")
from malmm_cli.cli.bar import bar
from malmm_cli.cli.console import note
from malmm_cli.cli.streams import open_streams

def hold():  # the interpreter's lock, as native libraries do that are loaded
    ctypes.PyDLL(None).usleep(900_000)

open_streams()
hold()
note("begun")
hold()
with bar(shown=True) as shown:
    if shown:
        shown.show("loading")
    hold()
    note("inside")
print("done", flush=True)
hold()
"""
TURNED = "\r⠋\r⠙"  # by the pulse: the bar writes whole lines


def test_a_spinner_turns_while_the_interpreter_is_held_up(tmp_path):
    seen = on_terminal(HELD_UP, folder=tmp_path)
    assert seen.code == 0, seen.text
    assert seen.lines == ["begun", "inside", "done"]
    starting, rest = seen.text.split("begun")
    assert "⠋ starting\r⠙ starting" in starting, "before there is a bar"
    between, _, rest = rest.partition("loading")
    assert "starting" not in between
    assert TURNED not in between, "nothing behind a line"
    shown, _, rest = rest.partition("inside")
    assert TURNED in shown, "in the place of the bar's own"
    assert TURNED not in rest.partition("done")[2]


@pytest.mark.parametrize("option", ["-q", "--no-progress"])
def test_nothing_turns_that_is_to_be_hidden(tmp_path, option):
    seen = on_terminal(HELD_UP.replace("shown=True", "shown=False"), option, folder=tmp_path)
    assert "⠙" not in seen.text, seen.text


def test_what_turns_ends_with_a_command_that_is_killed(tmp_path):
    ends = HELD_UP.replace('note("begun")', "import os; os.kill(os.getpid(), 9)")
    seen = on_terminal(ends, folder=tmp_path)  # to the end of all that have the terminal
    assert (seen.code, seen.lines) == (-9, [])


@pytest.mark.parametrize("sign", ["SIGKILL", "SIGSTOP"])
def test_a_command_goes_on_without_what_turns(tmp_path, sign):
    gone = f"import psutil, signal; psutil.Process().children()[0].send_signal(signal.{sign})"
    ends = HELD_UP.replace('hold()\nnote("begun")', f"hold()\n{gone}\nhold()\nnote('begun')", 1)
    ends += "\npsutil.Process().children()[0].kill()"
    seen = on_terminal(ends, folder=tmp_path)
    assert (seen.code, seen.lines[-1]) == (0, "done"), seen.text


def test_the_screen_of_these_tests():
    moved = "one\r\ntwo\rT\x1b[1A\x1b[2Kx\r\n\n\x1b[31mred\x1b[0m"
    assert screen(moved) == [" x", "Two", "red"]


COMMAND = "from malmm_cli.__main__ import main; main()"


@pytest.mark.parametrize(
    ("arguments", "stages"),
    [
        (("frames", SAMPLE, "--frames", "40", "--dump", "all"), ["shapes.mp4: reading", "/40"]),
        (("bench", "growth", "--model", "nosuch"), ["measuring"]),
        (("bench", "video", "gone.mp4", "--model", "tiny"), ["measuring"]),
        (("train", "tasks.jsonl", "-o", "my-model", "--model", "tiny"), ["my-model"]),
    ],
)
def test_a_bar_says_what_takes_so_long(tmp_path, arguments, stages):
    (tmp_path / "tasks.jsonl").write_text('{"id": 1}\n')
    seen = on_terminal(COMMAND, *arguments, folder=tmp_path)
    for stage in stages:
        assert stage in seen.text, seen.lines
    assert not any("━" in line for line in seen.lines), "and nothing is left of it"


@pytest.mark.parametrize(
    ("arguments", "typed", "says"),
    [
        (("ask", SAMPLE, "-"), "\x04\x04", "reading questions from the keyboard, one a line"),
        (("batch", "-", "-o", "x.jsonl"), "gone.mp4\n\x04\x04", "reading names of videos from the"),
    ],
)
def test_who_is_to_type_something_is_told_so(tmp_path, arguments, typed, says):
    seen = on_terminal(COMMAND, *arguments, "--offline", folder=tmp_path, typed=typed)
    assert says in " ".join(seen.lines)
    assert "Ctrl-D ends the list" in " ".join(seen.lines)
    quiet = on_terminal(COMMAND, *arguments, "--offline", "-q", folder=tmp_path, typed=typed)
    assert says not in " ".join(quiet.lines)
    assert quiet.code == seen.code
