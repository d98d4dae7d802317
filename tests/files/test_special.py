"""Outputs and inputs that are no files: pipes, devices, sockets, links; each ends in one line."""

import os
import shlex
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import FAST, SAMPLE

from malmm_cli.files import special

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX alone has them")


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """Makes what is no file under a name."""
    monkeypatch.chdir(tmp_path)
    sockets = []

    def make(kind, name):
        path = tmp_path / name
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            sockets.append(socket.socket(socket.AF_UNIX))
            sockets[-1].bind(name)
        elif kind == "loop":
            path.symlink_to(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "dangling":
            path.symlink_to("nowhere/file")
        else:
            path.symlink_to(f"/dev/{kind}")
        return name

    yield make
    for one in sockets:
        one.close()


ODD = ("pipe", "socket", "zero", "null", "full", "loop", "folder", "dangling")


@pytest.mark.parametrize("kind", ODD)
def test_outputs_that_are_read_back_are_files(refused, odd, tmp_path, kind):
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(f'{{"id": "1", "video": "{SAMPLE}", "question": "what?", "answer": "a"}}\n')
    code = {"loop": 1}.get(kind, 2)
    name = odd(kind, "out.jsonl")
    if kind != "folder":  # which takes files
        refused("batch", SAMPLE, *FAST, "-o", name, code=code, says="out.jsonl")
    refused("eval", tasks, *FAST, "--predictions", name, code=code, says="out.jsonl")


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("suffix", ["jsonl", "sqlite", "lock"])
def test_files_of_a_batch_in_a_folder_are_its_own(refused, odd, tmp_path, kind, suffix):
    (tmp_path / "out").mkdir()
    odd(kind, f"out/results.{suffix}")
    for more in ([], ["--overwrite"]):
        says = f"out/results.{suffix}: is"
        refused("batch", SAMPLE, *FAST, *more, "-o", "out/", code=2, says=says)


@pytest.mark.parametrize("kind", ["socket", "loop", "folder", "dangling"])
@pytest.mark.parametrize("command", ["caption", "remember", "frames"])
def test_outputs_that_nothing_can_be_written_to(refused, odd, kind, command):
    quick = ("-q",) if command == "frames" else ("--model", "tiny", "--frames", "2", "-q")
    code = {"loop": 1}.get(kind, 2)
    refused(command, SAMPLE, *quick, "-o", odd(kind, "out.png"), code=code, says="out.png")


@pytest.mark.parametrize("kind", ["null", "zero"])
@pytest.mark.parametrize("command", ["caption", "remember", "frames"])
def test_devices_are_written_to_and_nothing_is_left_beside(malmm, odd, tmp_path, kind, command):
    quick = ("-q",) if command == "frames" else ("--model", "tiny", "--frames", "2", "-q")
    name = odd(kind, "out.png")
    before = set(os.listdir("/dev"))
    done = malmm(command, SAMPLE, *quick, "-o", name)
    assert (done.code, done.err) == (0, "")
    assert os.listdir(tmp_path) == [name]
    assert os.readlink(name) == f"/dev/{kind}"
    assert set(os.listdir("/dev")) == before


def test_a_full_device_is_one_line(malmm, odd):
    done = malmm("caption", SAMPLE, *FAST, "-o", odd("full", "out.txt"))
    assert done.code == 1
    assert done.err.startswith("error: out.txt: cannot be written: No space left")


def test_a_pipe_that_nobody_reads_is_told(malmm, odd, monkeypatch):
    monkeypatch.setattr(special, "PATIENCE", 0.2)
    done = malmm("caption", SAMPLE, *FAST, "-o", odd("pipe", "out.txt"))
    assert done.code == 1
    assert done.err.startswith("error: out.txt: cannot be written: it has no reader")


@pytest.mark.parametrize("kind", ["pipe", "socket", "null", "zero", "loop", "dangling"])
def test_folders_that_are_none(refused, odd, tmp_path, vicuna_folder, kind):
    name = odd(kind, "out")
    (tmp_path / "x.safetensors").write_bytes(b"")
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(f'{{"id": "1", "video": "{SAMPLE}", "question": "what?", "answer": "a"}}\n')
    refused("convert", "x.safetensors", name, code=2, says="out")
    refused("train", tasks, "-o", name, "--model", "tiny", code=2, says="out")
    refused("synth", name, "--videos", "1", "-q", code=2, says="out")
    refused("frames", SAMPLE, "--dump", name, "-q", code=2, says="out")


@pytest.mark.parametrize("kind", ["pipe", "socket", "null", "zero", "folder", "loop", "dangling"])
def test_tasks_are_read_from_files(refused, odd, kind):
    name = odd(kind, "tasks.jsonl")
    if kind != "folder":
        refused("batch", name, *FAST, "-o", "out.jsonl", code=2, says="tasks.jsonl")
    refused("eval", name, *FAST, code=2, says="tasks.jsonl")
    refused("train", name, "-o", "model", "-m", "tiny", code=2, says="tasks.jsonl")
    refused("convert", name, "model", code=2, says="tasks.jsonl")


@pytest.mark.parametrize("name", ["x" * 300, "x" * 250 + ".jsonl"])
def test_names_that_are_too_long(refused, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks.jsonl").write_text(
        f'{{"id": "1", "video": "{SAMPLE}", "question": "what?", "answer": "a"}}\n'
    )
    quick = ("--model", "tiny", "--frames", "2", "-q")
    if name.endswith(".jsonl"):  # its state has a longer one
        refused("batch", SAMPLE, *FAST, "-o", name[5:], code=1, says="File name too long")
    else:
        for command in ("caption", "remember"):
            refused(command, SAMPLE, *quick, "-o", name, code=1, says="File name too long")
        refused("frames", SAMPLE, "-q", "--dump", name, code=1, says="File name too long")
        refused("synth", name, "--videos", "1", code=1, says="File name too long")
    refused("batch", SAMPLE, *FAST, "-o", f"{name}/", code=1, says="File name too long")
    refused("convert", name, "model", code=2, says="no such file")
    tiny = ("-m", "tiny")
    refused("train", "tasks.jsonl", "-o", name, *tiny, code=1, says="File name too long")
    refused("train", name, "-o", "model", *tiny, code=2, says="File name too long")
    refused("eval", "tasks.jsonl", "--predictions", f"{name}.jsonl", code=1, says="too long")


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="no such device")
@pytest.mark.parametrize("how", ["pipe", "file", "append"])
def test_dev_stdout_is_stdout(tmp_path, how):
    """And what others write to it comes behind."""
    quick = ("--model", "tiny", "--frames", "2", "--max-new-tokens", "2", "-q")
    command = [sys.executable, "-m", "malmm_cli", "caption", SAMPLE, *quick, "-o", "/dev/stdout"]
    command = ["sh", "-c", f"{shlex.join(map(str, command))}; echo behind"]
    path = tmp_path / "out.txt"
    path.write_text("before\n")
    if how == "pipe":
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        told, out = done.stderr, done.stdout
    else:
        with path.open("a" if how == "append" else "w") as file:
            done = subprocess.run(
                command, stdout=file, stderr=subprocess.PIPE, text=True, check=False
            )
        told, out = done.stderr, path.read_text()
    assert (done.returncode, told) == (0, "")
    before, _, text = out.rpartition("before\n") if how == "append" else ("", "", out)
    assert before == ""
    said, behind = text.splitlines()
    assert said.strip()
    assert behind == "behind"
    assert os.listdir(tmp_path) == ["out.txt"]


def test_a_folder_that_is_read_only(tmp_path):
    if os.getuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(stat.S_IREAD | stat.S_IEXEC)
    command = [sys.executable, "-m", "malmm_cli", "batch", SAMPLE, "--model", "tiny", "-o"]
    done = subprocess.run(
        [*command, "out.jsonl"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    tmp_path.chmod(stat.S_IRWXU)
    assert done.returncode == 1
    assert done.stderr.startswith("error: out.jsonl: the folder is not writable")
    assert not list(Path(tmp_path).iterdir())
