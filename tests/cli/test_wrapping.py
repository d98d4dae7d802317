"""Results on a terminal are wrapped between words."""

import shutil
import textwrap

import pytest
from helpers.commands import SAMPLE
from rich.cells import cell_len

from malmm_cli.cli import wrapping
from malmm_cli.cli.console import complain, note
from malmm_cli.cli.wrapping import Wrapped

TEXT = "a purple triangle blinks, a red star rises, a yellow heart vanishes, " * 3


@pytest.mark.parametrize("width", [10, 33, 80])
def test_lines_break_between_words(width):
    assert Wrapped(width).feed(TEXT.strip()) == textwrap.fill(TEXT.strip(), width)


@pytest.mark.parametrize("cut", ["| ", " |", "| |"])
def test_pieces_are_wrapped_as_the_whole(cut):
    wrap = Wrapped(20)
    pieces = TEXT.replace(" ", cut).split("|")
    assert "".join(map(wrap.feed, pieces)) == Wrapped(20).feed(TEXT)


def test_line_breaks_and_long_words_stay():
    assert Wrapped(5).feed("abcdefgh ij\nk\n\n") == "abcdefgh\nij\nk\n\n"


def test_wide_characters_take_two_cells():
    assert Wrapped(5).feed("日本 日本") == "日本\n日本"


@pytest.fixture
def terminal(monkeypatch):
    """Makes one of standard output and standard error a terminal of 60 columns."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "dumb")

    def become(name):
        monkeypatch.setattr(f"sys.{name}.isatty", lambda: True, raising=False)

    return become


def test_messages_are_wrapped_on_a_terminal_alone(capsys, terminal):
    advice = "vicuna-7b (15.8 GB, research only): while online, run: malmm models pull vicuna-7b"

    def printed():
        complain(f"clip.mp4: {TEXT}", advice)
        note(f"clip.mp4: {'日本 ' * 30}")
        return capsys.readouterr().err.splitlines()

    piped = printed()
    assert len(piped) == 3
    terminal("stderr")
    lines = printed()
    assert max(map(cell_len, lines)) <= 60
    assert " ".join(lines) == " ".join(line.strip() for line in piped)
    assert any(line.endswith("malmm models pull vicuna-7b") for line in lines)


def test_a_dry_run_is_wrapped_on_a_terminal_alone(malmm, tmp_path, terminal):
    name = f"{'a long name ' * 6}.mp4"
    video = shutil.copy(SAMPLE, tmp_path / name)
    run = ("batch", video, "-o", tmp_path / "out.jsonl", "--model", "tiny", "--dry-run")
    assert malmm(*run).out == f"{name}\tnew\n"
    terminal("stdout")
    lines = malmm(*run).out.splitlines()
    assert len(lines) > 1
    assert " ".join(lines) == f"{name}  new"


def test_elsewhere_nothing_is_wrapped(capsys):
    assert wrapping.wrapped(TEXT) == TEXT
