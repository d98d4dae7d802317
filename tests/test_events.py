"""Events: what a call reports, and what the command line shows of it."""

from contextlib import contextmanager

import pytest
from helpers.commands import SAMPLE
from helpers.events import Recorded

from malmm_cli.cli import terminal
from malmm_cli.cli.bar import shortened
from malmm_cli.cli.terminal import Terminal
from malmm_cli.errors import MediaError
from malmm_cli.events import SILENT, Events, Forwarding


def report(events):
    """Everything once."""
    with events.stage("outer", "items"), events.stage("inner", "frames"):
        events.progress("inner", 1, 2, "frames")
    events.note("a note")
    events.warn("a warning")
    events.timing("a.mp4", 3, 2.0, {"decode": 0.5})
    events.interrupted("kept")
    events.failed(MediaError("a.mp4: broken", hint="mend it"))


def test_by_default_nothing_is_shown(capsys):
    report(SILENT)
    assert capsys.readouterr() == ("", "")
    assert not SILENT.streams


def test_everything_is_handed_on():
    names = {name for name in vars(Events) if not name.startswith("_")}
    assert names <= {*vars(Forwarding)}
    to = Recorded()
    report(Forwarding(to))
    report(plain := Recorded())
    assert vars(to).keys() == vars(plain).keys()
    for name in vars(plain).keys() - {"errors"}:
        assert vars(to)[name] == vars(plain)[name], name
    assert [error.message for error in to.errors] == ["a.mp4: broken"]
    assert Forwarding(to).streams
    assert not Forwarding(SILENT).streams


def test_words_are_wanted_by_those_who_override_text():
    assert Recorded().streams
    assert not type("Deaf", (Events,), {})().streams


LINES = {
    "note": "a note\n",
    "warn": "warning: a warning\n",
    "timing": "a.mp4: 3 frames of 2.0 s; decode 0.50 s\n",
    "interrupted": "kept\n",
    "failed": "error: a.mp4: broken\nhint: mend it\n",
}


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, ("note", "warn", "interrupted", "failed")),
        ({"verbose": True}, ("note", "warn", "timing", "interrupted", "failed")),
        ({"quiet": True}, ("warn", "interrupted", "failed")),
    ],
)
def test_what_a_terminal_shows(capsys, options, shown):
    report(Terminal(**options))
    assert capsys.readouterr() == ("", "".join(LINES[name] for name in shown))


class Drawn:
    """A bar that keeps what it was to show."""

    def __init__(self):
        self.seen = []

    def show(self, text):
        self.seen.append(text)

    def describe(self, text):
        self.seen.append(text)

    def count(self, done, total, unit):
        self.seen.append((done, total, unit))


@pytest.fixture
def drawn(monkeypatch):
    """What the bar of a terminal shows, "over" at its end."""
    bar = Drawn()

    @contextmanager
    def drawing(*, shown):
        yield bar
        bar.seen.append("over")

    monkeypatch.setattr(terminal, "bar", drawing)
    return bar.seen


def test_nested_stages_share_one_bar(drawn):
    """Rich cannot draw two bars at once; frames are not items."""
    events = Terminal()
    with events.stage("batch", "items"):
        with events.stage("folder/a.mp4", "frames"):
            events.progress("a.mp4", 1, 2, "frames")
            events.progress("batch", 1, 3, "items")
        events.progress("batch", 1, 3, "items")
    events.progress("batch", 2, 3, "items")  # there is no bar any more
    frames, items = (1, 2, "frames"), (1, 3, "items")
    assert drawn == ["batch", "batch: a.mp4", frames, "batch", items, "over"]


def test_a_download_counts_all_of_its_files(drawn):
    events = Terminal()
    with events.stage("download", "bytes"):
        for name, done, size in (("a", 0, 4), ("b", 0, 6), ("a", 4, 4), ("b", 3, 6)):
            events.progress(name, done, size, "bytes")
    assert [done for done, *_ in drawn[1:-1]] == [0, 0, 4, 7]
    assert drawn[-2] == (7, 10, "bytes")


def test_failures_are_counted_in_the_bar(drawn, capsys):
    events = Terminal()
    with events.stage("batch", "items"):
        events.failed(MediaError("a.mp4: broken"))
    assert drawn == ["batch", "1 failed; batch", "over"]


def test_words_take_the_place_of_the_bar(drawn, capsys):
    events = Terminal(streams=True)
    with events.stage("a.mp4", "frames"):
        events.text("a ")
        assert drawn == ["a.mp4", "over"]
        events.progress("a.mp4", 1, 2, "frames")
        events.text("circle")
    assert drawn == ["a.mp4", "over"]
    assert capsys.readouterr().out == "a circle"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.mp4: reading", "a.mp4: reading"),
        ("a\nb", "a b"),
        ("x" * 40 + ": reading", "x" * 15 + "…" + "x" * 7 + ": reading"),
    ],
)
def test_a_long_name_loses_its_middle(text, expected):
    assert shortened(text) == expected
    assert len(shortened(text)) <= 32


def test_a_download_is_reported_by_load(tmp_path, vicuna_folder):
    from malmm_cli.pipeline import loading

    events = Recorded()
    loading.load(str(vicuna_folder), events=events)
    assert events.stages == ["download, bytes"]
    assert events.counts == []


def test_words_need_one_prompt_and_one_beam(t5_folder):
    import malmm_cli

    model, few = malmm_cli.load(str(t5_folder)), {"frames": 2, "memory": 1, "max_new_tokens": 3}
    for questions, beams in ((["what?", "where?"], 1), (["what?"], 2)):
        events = Recorded()
        malmm_cli.ask(SAMPLE, questions, model=model, beams=beams, events=events, **few)
        assert events.pieces == []
