"""What is recommended on a machine with so much memory, and the command that gets it."""

import pytest

from malmm_cli import hub
from malmm_cli.errors import CapacityError, UsageError
from malmm_cli.hub import advice
from malmm_cli.processes import machine

GB = 10**9


@pytest.fixture(autouse=True)
def bitsandbytes(monkeypatch):
    monkeypatch.setattr(advice, "find_spec", lambda name: object())


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (64, "qwen3-vl-2b (4.3 GB, Apache-2.0)"),
        (4.3, "qwen3-vl-2b (4.3 GB, Apache-2.0)"),
        (4, "qwen3.5-0.8b (1.7 GB, Apache-2.0)"),
        (1.5, "smolvlm2-500m (2.0 GB, Apache-2.0)"),
        (0.6, "smolvlm2-256m (1.0 GB, Apache-2.0)"),
    ],
)
def test_the_first_choice_that_fits_is_recommended_by_a_whole_command(memory, expected):
    name = expected.split()[0]
    assert hub.recommended(int(memory * GB)) == f"{expected} fits; run: malmm models use {name}"


def test_where_nothing_fits_as_it_is_it_may_fit_with_a_quantised_model():
    assert hub.recommended(GB // 2) == (
        "smolvlm2-500m (2.0 GB, Apache-2.0) fits with --quantize 4bit --dtype float16; "
        "while online, run: malmm models pull smolvlm2-500m"
    )


def test_where_nothing_fits_no_command_is_given():
    assert hub.recommended(GB // 5) == (
        "use a machine with more memory: smolvlm2-256m, the smallest, needs 235.5 MB"
    )


def test_a_missing_extra_is_installed_first(monkeypatch):
    monkeypatch.setattr(advice, "find_spec", lambda name: None)
    assert hub.recommended(GB // 2).endswith(
        "run: pip install 'malmm[quantize]' && malmm models pull smolvlm2-500m"
    )


INSTEAD = (
    "qwen3-vl-2b (4.3 GB, Apache-2.0) is smaller and newer than vicuna-7b; "
    "run: malmm models use qwen3-vl-2b, or give --model qwen3-vl-2b"
)


@pytest.mark.parametrize(("dtype", "memory"), [("float32", 20), ("float16", 12), ("float16", 5)])
def test_in_place_of_the_default_a_newer_model_is_named_first(dtype, memory):
    with pytest.raises(CapacityError) as error:
        hub.check_memory("vicuna-7b", 7_913_726_720, dtype, memory * GB)
    assert error.value.hint == INSTEAD


def test_a_default_that_is_here_is_kept_where_it_fits_in_another_form(monkeypatch):
    monkeypatch.setattr("malmm_cli.hub.cached", lambda *_: "a folder")
    for memory, hint in ((20, "this would fit: --dtype bfloat16"), (12, INSTEAD)):
        with pytest.raises(CapacityError) as error:
            hub.check_memory("vicuna-7b", 7_913_726_720, "float32", memory * GB)
        assert error.value.hint == hint


def test_a_missing_default_is_answered_by_the_newer_model_that_fits(monkeypatch):
    monkeypatch.setenv("MALMM_FAKE_MEMORY", "64GB")
    assert hub.pulling("vicuna-7b") == INSTEAD
    monkeypatch.setenv("MALMM_FAKE_MEMORY", "3GB")
    assert hub.pulling("vicuna-7b").endswith("use qwen3.5-0.8b, or give --model qwen3.5-0.8b")
    assert hub.pulling("vicuna-13b").endswith("while online, run: malmm models pull vicuna-13b")


def test_the_toy_is_never_recommended():
    for memory in range(1, 80):
        assert "tiny" not in hub.recommended(memory * GB)
        with pytest.raises(CapacityError) as error:
            hub.check_memory("vicuna-7b", 10**11, "float16", memory * GB)
        assert "tiny" not in error.value.hint


def test_another_form_of_the_same_model_comes_first(monkeypatch):
    monkeypatch.setattr("malmm_cli.hub.cached", lambda *_: "a folder")
    with pytest.raises(CapacityError) as error:
        hub.check_memory("flan-t5-xl", 4_022_969_088, "float32", 9 * GB)
    assert error.value.hint == "this would fit: --dtype bfloat16"


@pytest.mark.parametrize(("text", "size"), [("8GB", 8 * GB), ("1.5 GB", 1.5 * GB), ("1MB", 1e6)])
def test_the_memory_of_another_machine_can_be_assumed(monkeypatch, text, size):
    monkeypatch.setenv("MALMM_FAKE_MEMORY", text)
    assert machine.free_memory() == size


@pytest.mark.parametrize("text", ["8", "GB", "-1GB", "8 TB", "1e3GB"])
def test_memory_that_is_no_size_is_refused(monkeypatch, text):
    monkeypatch.setenv("MALMM_FAKE_MEMORY", text)
    with pytest.raises(UsageError, match="must be a size such as 8GB"):
        machine.free_memory()


def test_a_repository_of_a_known_model_gets_the_hint_of_its_name(monkeypatch):
    monkeypatch.setattr("malmm_cli.hub.cached", lambda *_: None)
    hints = []
    for name in ("vicuna-7b", "Salesforce/instructblip-vicuna-7b"):
        for memory in (8, 2):
            with pytest.raises(CapacityError) as error:
                hub.check_memory(name, 7_913_726_720, "bfloat16", memory * GB)
            hints.append(error.value.hint)
    assert hints[:2] == hints[2:]
    assert hints[0].endswith("use qwen3-vl-2b, or give --model qwen3-vl-2b")


def test_a_pull_that_cannot_fit_is_not_advised_again(malmm, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("MALMM_FAKE_MEMORY", "8GB")
    done = malmm("models", "pull", "flan-t5-xxl", "--offline")
    assert done.code == 1
    hint = done.err.splitlines()[-1]
    assert hint.startswith("hint: ")
    assert "flan-t5-xxl" not in hint
    assert hint.endswith("use qwen3-vl-2b, or give --model qwen3-vl-2b")
