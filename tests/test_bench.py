"""`malmm bench` refuses what this machine cannot hold before it builds anything."""

import pytest

from malmm_cli import bench, hub
from malmm_cli.models import scratch


@pytest.fixture
def machine(monkeypatch):
    """A machine with that much free memory, on which nothing is built and nothing is measured."""

    def build(*_, **__):
        raise AssertionError("gigabytes would have been built")

    monkeypatch.setattr(scratch, "write", build)
    monkeypatch.setattr(bench, "_in_child", build)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    def with_free(size):
        monkeypatch.setattr(hub, "machine_memory", lambda: size)

    return with_free


@pytest.mark.parametrize(
    ("options", "free", "says"),
    [
        (["--dtype", "float32"], 20, "float32 takes 31.7 GB of memory, and 20.0 GB are free: 11.7"),
        ([], 10, "bfloat16 takes 15.8 GB of memory, and 10.0 GB are free: 5.8 GB too little"),
    ],
)
def test_a_model_that_does_not_fit(refused, machine, options, free, says):
    machine(free * 10**9)
    options = ("--device", "cpu", *options)
    hint = "a smaller model"
    refused("bench", "model", "vicuna-7b", "new", *options, code=1, says=says, hint=hint)


def test_what_fits_is_built_in_the_numbers_that_fit(malmm, machine, monkeypatch, tmp_path):
    machine(20 * 10**9)
    built = []
    monkeypatch.setattr(scratch, "write", lambda *_, dtype: built.append(str(dtype)))
    row = {"parameters": 1, "dtype": "bfloat16", "device": "cpu", "frames": 2, "seconds": {}}
    row |= {"peak_mib": 1, "peak_device_mib": 0}
    monkeypatch.setattr(bench, "_in_child", lambda *given: built.append(given[-1]) or row)
    assert malmm("bench", "model", "vicuna-7b", tmp_path, "--device", "cpu").code == 0
    assert built == ["torch.bfloat16", "bfloat16"]
