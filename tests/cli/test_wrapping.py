"""Results on a terminal are wrapped between words."""

import textwrap

import pytest

from malmm_cli.cli import wrapping
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


def test_elsewhere_nothing_is_wrapped(capsys):
    assert wrapping.wrapped(TEXT) == TEXT
