"""Several processes that learn side by side, and those that should not: one speaks, all end."""

import os
import signal
import socket
import subprocess
import sys

import pytest
import torch
from helpers.training import QUICK, steps_logged, write_tasks

from malmm_cli import cli
from malmm_cli.errors import OutputError, UsageError
from malmm_cli.train import Training, checks, workers

# What a process of a group does, between two points at which each waits for all.
PROGRAM = """
import os, signal, sys
from malmm_cli.errors import MalmmError, ModelError
from malmm_cli.train.workers import joined
try:
    with joined() as workers:
        workers.wait()
        if workers.rank == {rank}:
            {action}
        workers.wait()
except MalmmError as error:
    print(type(error).__name__, error.message, file=sys.stderr, flush=True)
    os._exit(1)  # as the command line ends: threads of a group that broke may abort the process
"""
COMMAND = "import malmm_cli.__main__ as program; program.main()"
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
FAIL = "raise ModelError('this is too much')"
LOST = "ModelError another training process has ended or is unreachable"


@pytest.fixture
def command(tmp_path, vicuna_folder):
    data = write_tasks(tmp_path / "tasks.jsonl")
    return ("train", data, "--model", vicuna_folder, "--steps", "4", "--save-every", "2", *QUICK)


def together(*processes):
    """Run each program with its arguments as one of a group; exit codes and lines on stderr.

    Nobody else ends a process whose neighbour is gone, as torchrun would.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {
        "WORLD_SIZE": str(len(processes)),
        "LOCAL_WORLD_SIZE": str(len(processes)),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", *map(str, own)],
            env={**os.environ, **group, "RANK": str(number), "LOCAL_RANK": str(number)},
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for number, own in enumerate(processes)
    ]
    told = [process.communicate(timeout=240)[1] for process in started]
    assert "Traceback" not in "".join(told)
    return [process.returncode for process in started], [text.splitlines() for text in told]


# --- several processes are one training


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("rank", [0, 1])
def test_when_one_is_killed_the_other_ends(rank):
    program = PROGRAM.format(rank=rank, action=KILL)
    codes, told = together([program], [program])
    assert codes[rank] == -signal.SIGKILL
    assert (codes[1 - rank], told[1 - rank][-1]) == (1, LOST)


def test_the_one_that_fails_says_why():
    program = PROGRAM.format(rank=1, action=FAIL)
    codes, told = together([program], [program])
    assert codes == [1, 1]
    assert told[1] == ["ModelError this is too much"]
    assert told[0] == ["ToldElsewhereError see the error of the other process"]


def test_what_all_find_is_said_once(command, tmp_path):
    """By torchrun, which keeps what the processes share beyond the end of the first."""
    wrong = ("train", tmp_path / "nothing.jsonl", *command[2:], "-o", tmp_path / "out")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    done = subprocess.run(
        [sys.executable, *launcher, "malmm_cli", *map(str, wrong)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 1
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert "nothing.jsonl" in error
    assert not (tmp_path / "out").exists()


def test_processes_with_settings_of_their_own(command, tmp_path):
    own = (COMMAND, *command, "-o", tmp_path / "out")
    codes, told = together(own, (*own, "--lr", "0.01"))
    assert codes == [1, 2]
    (error,) = [line for line in told[0] + told[1] if line.startswith("error")]
    assert (
        error == "error: process 1's settings differ from those of process 0: lr 0.0001, now 0.01"
    )


# --- where each computes


@pytest.mark.parametrize(
    ("device", "found", "count", "expected"),
    [
        ("auto", "cpu", 3, "cpu"),
        ("cpu", "cpu", 3, "cpu"),
        ("auto", "mps", 3, "cpu"),
        ("auto", "cuda", 2, "cuda:1"),
        ("cuda:0", "cuda:0", 1, "cuda:0"),
    ],
)
def test_every_process_has_a_device(monkeypatch, device, found, count, expected):
    monkeypatch.setattr(workers, "pick_device", lambda _: torch.device(found))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    assert workers._own_device(device, 1, count) == expected


@pytest.mark.parametrize(
    ("device", "found", "says"),
    [
        ("mps", "mps", "--device mps: 3 processes cannot share it"),
        ("cuda:1", "cuda:1", "--device cuda:1: 3 processes cannot share it"),
        ("auto", "cuda", "3 processes were started on a machine with 2 GPU"),
    ],
)
def test_devices_that_do_not_go_round(monkeypatch, device, found, says):
    monkeypatch.setattr(workers, "pick_device", lambda _: torch.device(found))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match=says):
        workers._own_device(device, 1, 3)


def test_one_process_needs_no_other(monkeypatch):
    for environment in ({}, {"WORLD_SIZE": "1", "RANK": "0"}, {"WORLD_SIZE": "4"}):
        for name in ("WORLD_SIZE", "RANK"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with workers.joined("cpu") as joined:
            assert (joined.count, joined.device, joined.first) == (1, "cpu", True)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two: must be a whole number"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "the processes cannot connect: .*MASTER_ADDR"),
    ],
)
def test_an_environment_that_is_half_set(monkeypatch, environment, says):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=says), workers.joined():
        pass


# --- what is not for several


@pytest.fixture
def launched(monkeypatch):
    """As if torchrun had started this process as that one of two."""

    def launch(rank):
        for name in ("RANK", "LOCAL_RANK"):
            monkeypatch.setenv(name, str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")

    return launch


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (("caption", "a.mp4"), 2, "error: malmm caption: only `malmm train` runs in several"),
        (("batch", "a/", "-o", "b.jsonl"), 2, "error: malmm batch: only `malmm train` runs in"),
        (("eval", "a.jsonl"), 2, "error: malmm eval: only `malmm train` runs in several"),
        (("train", "a.jsonl", "--bogus"), 2, "error: "),
        (("train", "a.jsonl", "-o", "b", "--frames", "0"), 2, "error: --frames 0: "),
        (("train", "--help"), 0, "Usage: malmm train"),
        (("--version",), 0, "malmm "),
        ((), 0, "Usage: malmm"),
    ],
)
def test_the_first_of_several_speaks_for_all(run, launched, monkeypatch, command, code, says):
    monkeypatch.setattr(sys, "argv", ["malmm"])
    launched(0)
    first = run(*command)
    assert first.code == code
    assert says in first.out + first.err
    launched(1)
    beside = run(*command)
    assert (beside.code, beside.out, beside.err) == (0, "", "")


def test_a_single_process_of_torchrun_does_anything(monkeypatch, run):
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert run("models", "list").code == 0


# --- trainings that know nothing of one another


def test_a_folder_is_trained_in_by_one(run, command, tmp_path, monkeypatch):
    own = [*map(str, command), "-o", str(tmp_path / "out")]
    encode, codes = Training._encode, []
    monkeypatch.setattr(
        Training, "_encode", lambda *given: (codes.append(cli.run(own)), encode(*given))
    )
    done = run(*own)
    assert (done.code, codes) == (0, [2]), done.err
    assert f"error: {tmp_path / 'out'}: another training is writing to it" in done.err
    assert [line["step"] for line in steps_logged(tmp_path / "out")] == [1, 2, 3, 4]
    monkeypatch.undo()
    assert run(*own).code == 0, "it is free again"


def test_two_that_begin_at_once(run, command, tmp_path):
    """Neither finds a training in the folder; the second meets the first when it would write."""
    training = tmp_path / "out" / "training"
    checks.check_folder(training.parent, training)
    training.mkdir(parents=True)
    with (
        checks.held(training),
        pytest.raises(UsageError, match="another training") as caught,
        checks.held(training),
    ):
        pass
    assert caught.value.kind == "Busy"
    with checks.held(training):
        assert (training / checks.MARK).exists()


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_a_mark_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / checks.MARK).symlink_to(tmp_path / "outside")
    with pytest.raises(OutputError, match="cannot be locked"), checks.held(tmp_path):
        pass
    assert not (tmp_path / "outside").exists()
