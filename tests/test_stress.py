"""Short forms of the long runs in tests/stress."""

import subprocess
import sys

import pytest
from stress import calls, containers, environment, kept, many, mutate, names, soak


def test_containers():
    found = containers.run(["h264 without reordering"], ["steps back", "a late start"], seed=1)
    assert found["right"] > 5
    assert not found["wrong"]


def test_mutated_media():
    kinds = mutate.run(22, seed=1)
    assert kinds["answered"]
    assert len(kinds) > 2


@pytest.mark.skipif(sys.platform != "linux", reason="names that other systems do not take")
def test_random_names():
    names.run(24, seed=1)


def test_mutated_kept_files(one_thread):
    found = kept.run(25, seed=1)
    assert found["memory files"]["BrokenMemory"]
    assert found["caches"]["made again"]
    assert found["task files"]["refused"]


def test_damaged_model_folders():
    command = [sys.executable, "-m", "stress.models", "--folders", "20", "--seed", "1"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'refused': " in done.stdout
    assert "'the same': " in done.stdout


def test_many_small_items(capsys):
    each, rerun = many.run(400)
    assert each < 5 * many.PER_ITEM, "far from what it should be, even on a busy machine"
    assert rerun < many.RERUN


def test_memory_is_flat(one_thread):
    assert soak.run(60, window=15) < 2 * soak.GROWTH


def test_the_way_to_the_layers_is_short(one_thread):
    found = calls.count()
    assert found.without_loading < found.entered
    assert (calls.LAYERS, calls.LOOP) in found.without_loading
    own, whole = max(found.at_layers)
    assert own <= 9 <= whole
