"""A run that was killed, interrupted or out of disk goes on, and ends as if nothing had been."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from helpers.training import (
    FILL,
    INTERRUPT,
    KILL,
    QUICK,
    assert_equal,
    child,
    environment,
    same,
    state_of,
    steps_logged,
    tasks,
    write_tasks,
)
from safetensors.torch import load_file, save_file

from malmm_cli.checkpoints.state import read_state

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and limits are POSIX's")

STEPS = 8
OPTIONS = ("--steps", STEPS, "--save-every", "2", "--warmup", "2", "--lr", "0.001", *QUICK)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("data") / "tasks.jsonl")


@pytest.fixture
def command(data, vicuna_folder):
    """A run with dropout, so that its random numbers count."""
    return ("train", data, "--model", vicuna_folder, "--validation", data, *OPTIONS)


@pytest.fixture
def undisturbed(run, command, tmp_path):
    done = run(*command, "-o", tmp_path / "undisturbed")
    assert done.code == 0, done.err
    return tmp_path / "undisturbed"


def test_after_a_kill_it_ends_the_same(run, command, undisturbed, tmp_path):
    out = tmp_path / "killed"
    assert child(KILL, *command, "-o", out).returncode == -signal.SIGKILL
    assert [path.name for path in (out / "training").glob("step-*")] == ["step-00000004"]
    assert steps_logged(out)[-2]["step"] == 5 or steps_logged(out)[-1]["step"] == 5
    assert not (out / "config.json").exists(), "it is no model yet"
    done = run(*command, "-o", out)
    assert done.code == 0, done.err
    assert f"resuming after step 4 of {STEPS}" in done.err
    assert_equal(out, undisturbed)


@pytest.mark.parametrize(
    ("name", "times", "code", "told"),
    [("SIGINT", 1, 130, "interrupted"), ("SIGTERM", 3, 143, "terminated")],
)
def test_ctrl_c_saves_what_is_done(run, command, undisturbed, tmp_path, name, times, code, told):
    out = tmp_path / "interrupted"
    done = child(INTERRUPT.format(name, times), *command, "-o", out)
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1] == told
    assert f"step 6 of {STEPS} saved" in done.stderr
    assert [path.name for path in (out / "training").glob("step-*")] == ["step-00000006"]
    assert run(*command, "-o", out).code == 0
    assert_equal(out, undisturbed)


def test_a_full_disk_leaves_the_last_checkpoint(run, command, undisturbed, tmp_path):
    out = tmp_path / "full"
    done = child(FILL, *command, "-o", out)
    assert done.returncode == 1, done.stderr
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("error: ")
    assert hint == "hint: free up disk space"
    assert "cannot be written: " in error
    left = sorted(path.name for path in (out / "training").iterdir())
    assert left == [".malmm-train", "best.safetensors", "features", "log.jsonl", "step-00000004"]
    assert run(*command, "-o", out).code == 0
    assert_equal(out, undisturbed)


def test_a_run_that_is_done_stays_done(run, command, undisturbed):
    before = state_of(undisturbed), read_state(undisturbed)
    shutil.rmtree(undisturbed / "qformer_tokenizer")
    done = run(*command, "-o", undisturbed)
    assert done.code == 0, done.err
    assert same(state_of(undisturbed), before[0])
    assert same(read_state(undisturbed), before[1])
    assert (undisturbed / "qformer_tokenizer").is_dir()


def test_what_a_checkpoint_does_not_fit(run, command, undisturbed, t5_folder, data):
    def refused(*changes, code, says):
        done = run(*command, "-o", undisturbed, *changes)
        error = done.err.splitlines()[-2 if "hint: " in done.err else -1]
        assert error.startswith("error: "), done.err
        assert says in error
        assert done.code == code

    refused("--lr", "0.1", "--seed", "7", code=2, says="lr 0.001, now 0.1; seed 42, now 7")
    refused("--frames", "3", code=2, says="frames 4, now 3")
    refused("--model", t5_folder, code=2, says="with other settings: model ")
    (place,) = (undisturbed / "training").glob("step-*")
    state = json.loads((place / "state.json").read_text())
    trained, optimizer = place / "trained.safetensors", place / "optimizer.safetensors"
    whole = trained.read_bytes()
    shutil.copy(optimizer, trained)
    refused(code=1, says="weights do not match")
    trained.write_bytes(whole[:5000])
    refused(code=1, says="trained.safetensors: cannot be read")
    trained.write_bytes(whole)
    (place / "state.json").write_text(json.dumps(state)[:-30])
    refused(code=1, says="state.json: cannot be read")
    (place / "state.json").write_text(json.dumps({"step": "x", "settings": 3}))
    refused(code=1, says="state.json: cannot be read: 'step': expected a whole number, got text")
    (place / "state.json").unlink()
    (place / "state.json").symlink_to("/dev/zero")
    refused(code=1, says="not a regular file")


def test_another_model_of_the_same_name_is_another_run(run, vicuna_folder, data, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(vicuna_folder, base)
    command = ("train", data, "--model", base, "-o", tmp_path / "out", "--steps", "1", *QUICK)
    assert run(*command).code == 0
    for path in base.glob("*.safetensors"):
        changed = {k: v * 2 if "language_model" in k else v for k, v in load_file(path).items()}
        save_file(changed, path, {"format": "pt"})
    done = run(*command)
    assert done.code == 2
    assert "other settings: weights " in done.err


def test_other_data_is_another_run(run, command, undisturbed, data, tmp_path):
    other = write_tasks(tmp_path / "other.jsonl", [json.loads(data.read_text().splitlines()[0])])
    done = run("train", other, *command[2:], "-o", undisturbed)
    assert done.code == 2
    assert "other settings: data " in done.err


def test_two_processes_learn_as_one(run, vicuna_folder, tmp_path):
    """Batches of one in two processes (gloo, CPU) are batches of two in one."""
    data = write_tasks(tmp_path / "tasks.jsonl", tasks(answer="red"))
    base = shutil.copytree(vicuna_folder, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config["qformer_config"] |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (base / "config.json").write_text(json.dumps(config))
    command = ("train", data, "--model", base, "--steps", "3", *QUICK)
    command = [*map(str, command), "--validation", str(data), "--save-every", "2"]
    assert run(*command, "-o", tmp_path / "one", "--device", "cpu").code == 0
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    done = subprocess.run(
        [
            *(sys.executable, *launcher, "malmm_cli", *command),
            *("-o", str(tmp_path / "two"), "--batch-size", "1"),
        ],
        env=environment() | {"CUDA_VISIBLE_DEVICES": ""},  # and --device auto
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is a model") == 1, "one process speaks"
    one, two = (steps_logged(tmp_path / name) for name in ("one", "two"))
    assert [line.get("samples") for line in two] == [2, 1, None, 2, None]
    for ours, theirs in zip(one, two, strict=True):
        ours, theirs = ours.get("validation", ours), theirs.get("validation", theirs)
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-3)
    assert (tmp_path / "two" / "config.json").exists()
    again = run(*command, "-o", tmp_path / "two", "--device", "cpu", "--batch-size", "1")
    assert again.code == 2
    assert "contains a run with other settings: processes 2, now 1" in again.err
