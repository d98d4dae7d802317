"""`malmm doctor` looks at everything, and says what to do about what is missing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from malmm_cli import hub
from malmm_cli.errors import ModelError
from malmm_cli.processes import machine


def rows(malmm):
    return {row["what"]: row for row in json.loads(malmm("doctor", "--json").out)["findings"]}


def test_everything_is_looked_at(malmm, monkeypatch):
    monkeypatch.setattr(machine, "free_memory", lambda: 10**12)  # it must not change in between
    found = rows(malmm)
    assert list(found)[:4] == ["python", "torch", "transformers", "device"]
    assert {"pyav", "ffmpeg", "decord", "cache", *hub.KNOWN} <= found.keys()
    assert "h264" in found["pyav"]["found"]
    assert found["tiny"]["good"]
    assert all(row["good"] or row["advice"] for row in found.values())
    plain = malmm("doctor").out
    assert all(row["found"] in plain for row in found.values())


@pytest.mark.parametrize(
    ("free", "good", "says"),
    [
        (10**12, True, "fits in float32, bfloat16, float16"),
        (11 * 10**9, False, "fits only with --quantize"),
        (10**9, False, "does not fit"),
    ],
)
def test_what_would_fit(malmm, monkeypatch, free, good, says):
    monkeypatch.setattr(machine, "free_memory", lambda: free)
    monkeypatch.setattr("malmm_cli.doctor.is_cpu", lambda _: True)
    found = rows(malmm)
    for name in ("vicuna-7b", "qwen3-vl-8b"):
        assert found[name]["good"] is good
        assert says in found[name]["found"]
    assert good or ("--quantize 8bit" in found["qwen3-vl-8b"]["advice"]) == ("only" in says)
    assert good or "is smaller and newer" in found["vicuna-7b"]["advice"] or "only" not in says


def test_sizes_are_numbers_too(malmm, monkeypatch):
    monkeypatch.setattr(machine, "free_memory", lambda: 10**12)
    monkeypatch.setattr("malmm_cli.doctor.is_cpu", lambda _: True)
    found = rows(malmm)
    assert found["device"]["numbers"] == {"memory_free": 10**12, "cores": os.cpu_count()}
    assert found["cache"]["numbers"]["disk_free"] > 0
    size = hub.KNOWN["vicuna-7b"].download
    missing = {"missing": size, "size": 0, "memory_float16": size}
    assert missing.items() <= found["vicuna-7b"]["numbers"].items()
    assert json.loads(malmm("doctor", "--json").out)["schema"] == "malmm/1"


@pytest.mark.parametrize(
    ("memory", "name"),
    [("24GB", "qwen3-vl-2b"), ("4GB", "qwen3.5-0.8b"), ("1.1GB", "smolvlm2-500m")],
)
def test_it_ends_with_what_to_run(malmm, monkeypatch, memory, name):
    monkeypatch.setenv("MALMM_FAKE_MEMORY", memory)
    last = malmm("doctor").out.splitlines()[-1]
    assert last.startswith(f"ok  next          {name} (")
    assert last.endswith(f"Apache-2.0) fits; run: malmm models use {name}")


def test_what_to_run_follows_from_the_default_model(malmm, monkeypatch):
    monkeypatch.setenv("MALMM_FAKE_MEMORY", "24GB")
    monkeypatch.setenv("MALMM_MODEL", "qwen3-vl-2b")
    assert rows(malmm)["next"]["found"] == (
        "qwen3-vl-2b (4.3 GB, Apache-2.0): while online, run: malmm models pull qwen3-vl-2b"
    )
    describe = hub.describe
    monkeypatch.setattr(hub, "describe", lambda name, **how: {**describe(name, **how), **HERE})
    assert rows(malmm)["next"]["found"] == "malmm caption VIDEO"
    assert "--model       qwen3-vl-2b (MALMM_MODEL)" in malmm("doctor").out
    monkeypatch.setenv("MALMM_MODEL", "tiny")  # which knows no real video
    assert rows(malmm)["next"]["found"] == (
        "malmm caption VIDEO --model qwen3-vl-2b --dtype float32"
    )


HERE = {"here": True, "folder": None}


def test_on_a_terminal_its_text_is_wrapped_in_its_column(malmm, monkeypatch):
    monkeypatch.setattr("malmm_cli.cli.doctor.sys", SimpleNamespace(stdout=Terminal()))
    monkeypatch.setenv("COLUMNS", "80")
    lines = malmm("doctor").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith(" " * 18) for line in lines) > 3


class Terminal:
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", ["60", "72", "80"])
def test_the_command_to_run_stays_on_one_line(malmm, monkeypatch, columns):
    monkeypatch.setenv("MALMM_FAKE_MEMORY", "8GB")
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("malmm_cli.cli.doctor.sys", SimpleNamespace(stdout=Terminal()))
    lines = malmm("doctor").out.splitlines()
    assert lines[-1].endswith("malmm models use qwen3-vl-2b")
    assert not [line for line in lines if line.endswith(("malmm", "malmm models", "pull", "use"))]


def test_what_is_missing_is_named(malmm, monkeypatch):
    monkeypatch.setattr("malmm_cli.media.ffmpeg.shutil.which", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    ffmpeg = rows(malmm)["ffmpeg"]
    assert not ffmpeg["good"]
    assert "malmm[ffmpeg]" in ffmpeg["advice"]


def cache_at(monkeypatch, place, free=10**12):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(place))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 0, free))


def test_a_disk_with_too_little_room(malmm, monkeypatch, tmp_path):
    cache_at(monkeypatch, tmp_path, free=20 * 10**6)
    found = rows(malmm)
    assert not found["cache"]["good"]
    assert "HF_HOME" in found["cache"]["advice"]
    assert not found["vicuna-7b"]["good"]
    assert "20.0 MB" in found["vicuna-7b"]["found"]
    assert found["tiny"]["good"]
    cache_at(monkeypatch, tmp_path, free=20 * 10**9)
    found = rows(malmm)
    assert found["cache"]["good"]
    assert "disk space is free" not in found["vicuna-7b"]["found"]
    assert "disk space is free" in found["flan-t5-xxl"]["found"]


def test_a_cache_that_cannot_be_written_to(malmm, monkeypatch, tmp_path):
    cache_at(monkeypatch, tmp_path)
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)  # root may everything
    cache = rows(malmm)["cache"]
    assert not cache["good"]
    assert "is not writable" in cache["found"]
    assert "HF_HOME" in cache["advice"]


def test_a_cache_that_is_a_file(malmm, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    cache_at(monkeypatch, tmp_path / "file" / "hub")
    cache = rows(malmm)["cache"]
    assert not cache["good"]
    assert f"{tmp_path / 'file'} is a file" in cache["found"]
    assert "HF_HOME" in cache["advice"]


def test_damaged_weights_do_not_end_it(malmm, monkeypatch):
    def describe(name, **_):
        raise ModelError(f"{name} is damaged", hint="mend it")

    monkeypatch.setattr(hub, "describe", describe)
    vicuna = rows(malmm)["vicuna-7b"]
    assert (vicuna["found"], vicuna["good"], vicuna["advice"]) == (
        "vicuna-7b is damaged",
        False,
        "mend it",
    )


def test_rows_that_are_options_are_named_so(malmm):
    plain = malmm("doctor").out.splitlines()
    labels = [line.split()[1] for line in plain if line[:2].strip()]
    assert len(labels) == len(set(labels))
    assert {"device", "--device", "cache", "--cache", "--cache-size"} <= set(labels)


def test_without_a_gpu_torch_is_not_imported():
    """Where there may be one, the first rows are printed before."""
    program = (
        "import sys\n"
        "from malmm_cli import doctor\n"
        "rows = doctor.examine()\n"
        "print([next(rows).what for _ in range(3)], 'torch' in sys.modules)\n"
        "doctor.is_cpu = lambda _: True\n"
        "print(len([*rows, doctor.next_step()]) > 10, 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "['python', 'torch', 'transformers'] False\nTrue False\n", done.stderr


@pytest.mark.parametrize(
    ("value", "row"), [("1", "True (HF_HUB_OFFLINE)"), ("0", "False (default)")]
)
def test_the_hub_variable_for_offline_use_is_named(malmm, monkeypatch, value, row):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert f"ok  --offline     {row}" in malmm("doctor").out.splitlines()
