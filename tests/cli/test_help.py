"""The help of every command, as a terminal of 80 columns shows it."""

import re
from collections.abc import Iterator

import pytest
import typer

from malmm_cli.cli import app

FEW = 5  # so many options, --help included, need no headings


def commands(command, names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command and group below `command`."""
    yield names
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*names, name))


EVERY = list(commands(typer.main.get_command(app)))


def section(text: str, title: str) -> list[str]:
    """The indented lines below a title."""
    found = re.search(rf"^{title}:\n((?:  .*\n?)+)", text, re.MULTILINE)
    return found[1].splitlines() if found else []


@pytest.fixture(params=EVERY, ids=lambda names: " ".join(names) or "malmm")
def help_text(request, malmm, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = malmm(*request.param, "--help")
    assert (done.code, done.err) == (0, "")
    return done.out


def test_every_command_is_found():
    assert {(), ("caption",), ("bench", "all"), ("models", "pull"), ("cache", "rm")} <= set(EVERY)


def test_no_line_is_longer_than_the_terminal(help_text):
    assert not [line for line in help_text.splitlines() if len(line) > 80]


def test_no_summary_is_cut_off(help_text):
    assert not [line for line in section(help_text, "Commands") if line.endswith(("...", "…"))]


def test_long_lists_of_options_are_under_headings(help_text):
    options = re.findall(r"^  (?:-\w, )?--[\w-]+", help_text, re.MULTILINE)
    if len(options) > FEW:
        (other,) = section(help_text, "Options")
        assert other.startswith("  -h, --help")


def test_values_have_names_and_not_types(help_text):
    assert not re.findall(r"<[^>\n]*>", help_text)
