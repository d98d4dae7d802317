"""The bar of a batch on a terminal."""

import io
import sys
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest
from helpers.batches import files, inline, planned, start
from rich.console import Console

from malmm_cli.batch import loop, pool
from malmm_cli.batch.plan import jobs
from malmm_cli.cli import bar
from malmm_cli.cli.terminal import Terminal


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def screen(tmp_path, monkeypatch):
    """Makes a terminal of 80 columns of standard error, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return partial(_make_screen, monkeypatch)


def _make_screen(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", Screen())
    monkeypatch.setattr(bar, "spinning", lambda: screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")


def shown(terminal):
    """What its bar shows."""
    pen = Console(width=80, file=io.StringIO(), color_system=None)
    pen.print(terminal._bar._progress.get_renderable())
    return pen.file.getvalue()


def test_the_bar_shows_what_is_done_failed_and_at_hand(screen):
    screen()
    terminal = Terminal()
    names = files("a.mp4", "fail-1.mp4", f"{'long' * 20}end.mp4")
    lines = []

    def watched(next_job):
        for done in inline(next_job, terminal):
            yield done
            lines.append(shown(terminal))

    ledger = SimpleNamespace(add=lambda _, outcome: outcome)
    with terminal.stage("batch", "items"):
        loop.run(jobs(planned(names)), watched, ledger, events=terminal)
    assert all(len(line.splitlines()) == 1 for line in lines), "one line of 80 columns"
    first, second, third = lines
    assert "a.mp4" in first
    assert "1/3" in first
    assert "failed" not in first
    assert "fail-1.mp4" in second
    assert "1 failed" in second
    assert "longend.mp4" in third
    assert "3/3" in third
    assert " items/" in third


def test_the_bar_shows_that_the_model_is_loaded_then_the_video(screen):
    screen()
    lines = []

    class Watched(Terminal):
        def started(self, video):
            super().started(video)
            lines.append(shown(self))

        @contextmanager
        def stage(self, name, unit):
            with super().stage(name, unit):
                lines.append(shown(self))
                yield

    watched = Watched()
    names = ["gone.mp4", *files("a.mp4")]
    engine = partial(pool.run, start=partial(start, 0.0, None), model="small", events=watched)
    with watched.stage("batch", "items"):
        loop.run(
            jobs(planned(names)),
            engine,
            SimpleNamespace(add=lambda _, outcome: outcome),
            events=watched,
        )
    _, loading, begun = lines
    assert "1 failed; batch: small: loading" in loading
    assert "mp4" not in loading
    assert "1 failed; a.mp4" in begun
    assert "1/2" in begun, "what was done before the model was loaded"
