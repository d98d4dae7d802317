"""The bar of a batch on a terminal."""

import io
import sys
from types import SimpleNamespace

from helpers.batches import inline, planned
from rich.console import Console

from malmm_cli.batch import loop
from malmm_cli.batch.plan import jobs
from malmm_cli.cli import bar
from malmm_cli.cli.terminal import Terminal


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_shows_what_is_done_failed_and_at_hand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["a.mp4", "fail-1.mp4", f"{'long' * 20}end.mp4"]
    for name in names:
        (tmp_path / name).write_text(name)
    screen, lines = Screen(), []
    monkeypatch.setattr(sys, "stderr", Screen())
    monkeypatch.setattr(bar, "drawing", lambda: screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal()

    def watched(next_job):
        for done in inline(next_job):
            yield done
            pen = Console(width=80, file=io.StringIO(), color_system=None)
            pen.print(terminal._bar._progress.get_renderable())
            lines.append(pen.file.getvalue())

    ledger = SimpleNamespace(add=lambda *_: None)
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
