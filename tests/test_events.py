"""Events: what a call reports, and what the command line shows of it."""

import pytest
from helpers.commands import SAMPLE
from helpers.events import Recorded

from malmm_cli.cli.terminal import Terminal
from malmm_cli.errors import MediaError
from malmm_cli.events import SILENT, Events


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
        ({"quiet": True}, ("interrupted", "failed")),
    ],
)
def test_what_a_terminal_shows(capsys, options, shown):
    report(Terminal(**options))
    assert capsys.readouterr() == ("", "".join(LINES[name] for name in shown))


def test_nested_stages_have_one_bar(monkeypatch):
    """Rich cannot draw two bars at once, and frames are not items."""
    from contextlib import contextmanager

    from malmm_cli.cli import terminal

    seen = []

    @contextmanager
    def bar(label, *, shown, unit):
        seen.append(f"{label}, {unit}, {shown}")
        yield lambda *given: seen.append(given)
        seen.append("over")

    monkeypatch.setattr(terminal, "progress", bar)
    events = Terminal(label="")
    with events.stage("batch", "items"):
        with events.stage("a.mp4", "frames"):
            events.progress("a.mp4", 1, 2, "frames")
        events.progress("batch", 1, 3, "items")
    events.progress("batch", 2, 3, "items")  # there is no bar any more
    assert seen == [", items, True", ("batch", 1, 3), "over"]


def test_words_take_the_place_of_the_bar(monkeypatch, capsys):
    from contextlib import contextmanager

    from malmm_cli.cli import terminal

    seen = []

    @contextmanager
    def bar(*_, **__):
        yield lambda *given: seen.append(given)
        seen.append("over")

    monkeypatch.setattr(terminal, "progress", bar)
    events = Terminal(streams=True)
    with events.stage("a.mp4", "frames"):
        events.text("a ")
        assert seen == ["over"]
        events.progress("a.mp4", 1, 2, "frames")
        events.text("circle")
    assert seen == ["over"]
    assert capsys.readouterr().out == "a circle"


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
