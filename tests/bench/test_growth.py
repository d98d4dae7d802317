"""`malmm bench growth`: tokens and memory against frames, until the form without a memory fails."""

import os
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
from PIL import Image

from malmm_cli.bench import child
from malmm_cli.errors import CapacityError
from malmm_cli.settings import Defaults

growth = import_module("malmm_cli.bench.growth")  # the package has a call of that name


@pytest.fixture
def here(monkeypatch, load_once, one_thread):
    """Measures in this process, which keeps the memory that it may take."""
    from malmm_cli.models import registry

    monkeypatch.setattr(registry, "load", load_once)
    monkeypatch.setattr(growth, "_limit_memory", lambda _: 5 * 10**9)
    monkeypatch.setattr(growth, "in_child", lambda _, **given: growth.measure_growth(**given))


@pytest.fixture
def reads_4096(monkeypatch):
    """Measures nothing: a language model that reads the 32 tokens of 126 frames."""
    measured = []

    def in_child(name, *, frames, memory, **_):
        assert name == "growth"
        measured.append((memory, frames))
        row = {"tokens": 32 if memory else 32 * frames, "context": 4096, "failed": None}
        row |= {"peak_mib": 400, "peak_device_mib": 0, "device": "cpu", "dtype": "float32"}
        if memory or frames <= 126:
            return row
        why = (
            f"{row['tokens']} visual tokens, 30 prompt tokens and 9 new tokens are too many for it"
        )
        return {**row, "failed": why, "tokens": None, "peak_mib": None, "most": 126}

    monkeypatch.setattr(growth, "in_child", in_child)
    return measured


def points(rows, memory):
    return [(row["frames"], row["tokens"]) for row in rows if row["memory"] == memory]


def test_frames_grow_until_the_form_without_a_memory_fails(reads_4096):
    rows = list(growth.growth("tiny", memory=10))
    frames = [20, 40, 60, 100, 126, 200]
    assert points(rows, 10) == [(number, 32) for number in frames]
    assert points(rows, 0) == [*((n, 32 * n) for n in frames[:-1]), (200, None)]
    assert [row["frames"] for row in rows if row["failed"]] == [200]
    assert all("most" not in row for row in rows)


def test_frames_that_are_asked_for_are_all_measured(reads_4096):
    list(growth.growth("tiny", memory=10, frames=[100, 200, 400]))
    assert reads_4096 == [(memory, n) for n in (100, 200, 400) for memory in (10, 0)]


def test_tokens_of_a_model(here, write_model):
    folder = str(write_model("vicuna", context=256))
    rows = list(growth.growth(folder, memory=2, frames=[2, 4, 60]))
    (_, each), (_, same), (_, always) = points(rows, 2)
    assert each == same == always
    assert points(rows, 0) == [(2, 2 * each), (4, 4 * each), (60, None)]
    assert all(row["context"] == 256 for row in rows)
    assert rows[-1]["failed"].startswith(f"{60 * each} visual tokens, ")
    how = {"model": folder, "memory": 0, "device": "cpu", "dtype": "float32"}
    most = int(rows[-1]["failed"].split("so at most ")[1].split()[0])
    assert not growth.measure_growth(frames=most, **how)["failed"]
    assert growth.measure_growth(frames=most + 1, **how)["most"] == most


def test_too_little_memory_is_a_row(here, monkeypatch, t5_folder):
    def answered(*_):
        raise MemoryError

    monkeypatch.setattr(growth.answer, "answered", answered)
    *_, row = growth.growth(str(t5_folder), memory=2, frames=[3])
    assert row["failed"] == "not enough memory (5.0 GB were free)"
    assert row["tokens"] > 0
    assert row["peak_mib"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to the limit")
def test_a_process_stops_before_the_machine_is_out_of_memory(monkeypatch, t5_folder):
    monkeypatch.setenv("MALMM_FAKE_MEMORY", "0.3GB")
    how = {"model": str(t5_folder), "device": "cpu", "dtype": "float32", "memory": 0}
    row = child.in_child("growth", **how, frames=300)
    assert row["failed"].startswith("not enough memory on cpu in float32 to ")
    assert row["failed"].endswith(" (0.3 GB were free)")


def test_a_process_that_the_system_killed(monkeypatch):
    killed = SimpleNamespace(returncode=-9, stdout="", stderr="")
    monkeypatch.setattr(child.subprocess, "run", lambda *_, **__: killed)
    with pytest.raises(CapacityError, match="measuring growth was killed"):
        child.in_child("growth")


def test_the_table(malmm, reads_4096):
    done = malmm("bench", "growth", "--model", "tiny")
    assert done.code == 0, done.err
    heading, *rows = done.out.splitlines()
    heads = ["memory", "frames", "tokens", "peak", "MiB", "device", "MiB", "ratio"]
    assert heading.split() == heads
    assert [rows[0].split(), rows[1].split()] == [
        ["10", "20", "32", "400", "1.000"],
        ["none", "20", "640", "400", "1.000"],
    ]
    assert rows[-3].split() == ["none", "200"]
    assert rows[-2].startswith("  fails: 6400 visual tokens")
    assert max(map(len, rows)) <= 80
    assert "torch" in done.err


def test_the_plot(malmm, reads_4096, tmp_path):
    path = tmp_path / "growth.png"
    run = ("bench", "growth", "--model", "tiny", "--plot", path)
    assert malmm(*run).code == 0
    with Image.open(path) as picture:
        assert picture.width > picture.height > 300
        assert len(picture.getcolors(10**6)) > 3
    size, measured = path.stat().st_size, len(reads_4096)
    done = malmm(*run)
    assert (done.code, done.out) == (2, "")
    assert "growth.png: exists" in done.err
    assert len(reads_4096) == measured, "refused before anything was measured"
    assert malmm(*run, "--overwrite", "--frames", "20").code == 0
    assert path.stat().st_size != size


def test_what_was_measured_before_a_failure_is_drawn(malmm, reads_4096, monkeypatch, tmp_path):
    once = growth.in_child

    def in_child(name, *, frames, **how):
        if frames > 40:
            raise CapacityError("killed")
        return once(name, frames=frames, **how)

    monkeypatch.setattr(growth, "in_child", in_child)
    done = malmm("bench", "growth", "--model", "tiny", "--plot", tmp_path / "growth.png")
    assert (done.code, done.err) == (1, "error: killed\n")
    assert len(done.out.splitlines()) == 5
    assert os.listdir(tmp_path) == ["growth.png"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--memory", "0"), "--memory 0: must be at least 1"),
        (("--memory", "-3"), "--memory -3: must be at least 1"),
        (("--frames", "0"), "--frames 0: must be at least 1"),
        (("--frames", "20", "--frames", "x"), "--frames x: must be a whole number"),
        (("--device", "cuda:9"), "device 'cuda:9' is not available"),
        (("--plot", "nowhere/growth.png"), "nowhere/growth.png: no such folder: nowhere"),
    ],
)
def test_wrong_use(refused, reads_4096, options, says):
    refused("bench", "growth", "--model", "tiny", *options, code=2, says=says)
    assert not reads_4096


def test_a_model_without_banks(refused, reads_4096, monkeypatch):
    from malmm_cli.models import registry

    tasks = registry.defaults().tasks
    for banks in ((), ("none",)):
        without = Defaults(tasks, ("mbc",), banks)
        monkeypatch.setattr(registry, "defaults", lambda _, known=without: known)
        run = ("bench", "growth", "--model", "tiny")
        refused(*run, code=2, says="tiny: has no memory bank", hint="malmm models")


@pytest.mark.parametrize("command", [("growth",), ("video", "clip.mp4")])
def test_a_model_that_is_not_downloaded(malmm, reads_4096, clip, monkeypatch, command):
    monkeypatch.chdir(clip.parent)
    done = malmm("bench", *command, "--model", "flan-t5-xxl")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: flan-t5-xxl: ")
