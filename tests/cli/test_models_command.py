"""`malmm models`: what is said of models that are here and of those that are not."""

import io
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub.utils import WeakFileLock
from safetensors.torch import load_file

from malmm_cli import hub
from malmm_cli.errors import CapacityError
from malmm_cli.hub.registry import KNOWN
from malmm_cli.hub.scores import SCORES
from malmm_cli.processes import machine

TINY = Path(hub.__file__).parents[1] / "assets" / "tiny"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def test_the_list_says_what_each_takes(malmm, monkeypatch):
    monkeypatch.setenv("MALMM_FAKE_MEMORY", "7GB")
    header, *lines = malmm("models", "list").out.splitlines()
    rows = {line[2:].split()[0]: line for line in lines}
    assert header.split() == "name download licence MLVU V-MME LVB fits on disk".split()
    assert rows["vicuna-7b"].split() == "* vicuna-7b 15.8 GB research only 4bit no".split()
    assert rows["flan-t5-xxl"].split() == "flan-t5-xxl 49.2 GB MIT no no".split()
    qwen = "qwen3-vl-2b 4.3 GB Apache-2.0 68.3 61.9 47.4 half no"
    assert rows["qwen3-vl-2b"].split() == qwen.split()
    assert rows["smolvlm2-500m"].split() == (
        "smolvlm2-500m 2.0 GB Apache-2.0 47.3 42.2 float32 no".split()
    )
    size = hub.size_text(sum(f.stat().st_size for f in TINY.rglob("*") if f.is_file()))
    assert rows["tiny"].split() == f"tiny MIT float32 {size}".split()


def test_the_list_fits_on_a_small_terminal_and_says_where_scores_come_from(malmm, monkeypatch):
    for memory in ("1MB", "7GB", "90GB"):
        monkeypatch.setenv("MALMM_FAKE_MEMORY", memory)
        lines = malmm("models").out.splitlines()
        assert max(map(len, lines)) <= 80
        assert len(lines) < 24
    text = " ".join(lines)
    for row in SCORES.values():
        assert row.source in text
    assert "qwen3.5-2b|4b: " in text
    assert "smolvlm2: " in text


def test_a_default_that_has_no_short_name_is_named_below_the_list(malmm, monkeypatch):
    assert "* default. " in malmm("models").out
    monkeypatch.setenv("MALMM_MODEL", "someone/model")
    out = malmm("models").out
    assert "* default: someone/model. " in out
    assert not [line for line in out.splitlines()[1:] if line.startswith("* ") and "GB" in line]


def test_the_list_is_that_of_the_plain_command(malmm, monkeypatch):
    monkeypatch.setenv("MALMM_FAKE_MEMORY", "7GB")
    assert malmm("models", "--json") == malmm("models", "list", "--json")
    rows = json.loads(malmm("models", "--json").out)
    assert rows == [json.loads(malmm("models", "info", name, "--json").out) for name in KNOWN]


def test_info_of_a_model_that_is_not_here(malmm, monkeypatch):
    monkeypatch.setenv("MALMM_FAKE_MEMORY", "12GB")
    for name in ("vicuna-13b", "Salesforce/instructblip-vicuna-13b"):
        about = json.loads(malmm("models", "info", name, "--json").out)
        assert about == {
            "schema": "malmm/1",
            "name": name,
            "repository": "Salesforce/instructblip-vicuna-13b",
            "revision": None,
            "pinned": False,
            "licence": "research only (LLaMA licence)",
            "parameters": 14_192_093_952,
            "download": 28_384_187_904,
            "memory": {
                "float32": 56_768_375_808,
                "bfloat16": 28_384_187_904,
                "float16": 28_384_187_904,
                "8bit": 16_330_806_784,
                "4bit": 10_621_310_464,
            },
            "fits": ["4bit"],
            "scores": None,
            "here": False,
            "folder": None,
            "shards": None,
            "stored": None,
            "note": "",
            "arrived": 0,
            "size": 0,
        }
    lines = malmm("models", "info", "vicuna-7b").out.splitlines()
    assert "revision    19103d0c5b5263c8a7891012e08573439fb6607f (pinned)" in lines
    assert "download    about 15.8 GB" in lines
    assert "folder      not downloaded" in lines


def test_info_of_what_nothing_is_known_of(malmm):
    about = json.loads(malmm("models", "info", "someone/model", "--json").out)
    assert (about["here"], about["licence"], about["parameters"]) == (False, None, None)
    assert {*about["memory"].values(), about["fits"], about["scores"]} == {None}
    lines = malmm("models", "info", "someone/model").out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", "repository", "revision", "folder"]


def test_info_reads_the_files_that_are_here(malmm, t5_folder, write_model):
    about = json.loads(malmm("models", "info", "tiny", "--json").out)
    state = load_file(TINY / "model.safetensors")
    assert about["parameters"] == sum(value.numel() for value in state.values())
    assert about["stored"] == {"F16": about["parameters"]}
    assert about["memory"]["float32"] == 4 * about["parameters"]
    assert about["fits"] == list(about["memory"])
    assert about["shards"] == {"model.safetensors": (TINY / "model.safetensors").stat().st_size}
    sharded = write_model("flan-t5", max_shard_size="1MB")
    whole, parts = (
        json.loads(malmm("models", "info", folder, "--json").out) for folder in (t5_folder, sharded)
    )
    assert len(parts["shards"]) > 1
    assert parts["parameters"] == whole["parameters"]
    assert parts["folder"] == str(sharded)
    assert "parameters" in malmm("models", "info", sharded).out


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "weights are missing"),
        (b"", "model.safetensors: cannot be read: the file is empty"),
        (b"\xff" * 100, "model.safetensors: cannot be read: not a safetensors file"),
        (b"\xff" * 7 + b"\0{}", "model.safetensors: cannot be read: not a safetensors file"),
        (b"\2" + bytes(7) + b"[]", "model.safetensors: cannot be read: not a safetensors file"),
        (b"\7" + bytes(7) + b'{"a":3}', "cannot be read: not a safetensors file"),
        (b"\x09" + bytes(7) + b'{"a":3}', "cannot be read: the file is truncated"),
        (b"\x13" + bytes(7) + b'{"a":{"dtype":"F16"', "not a safetensors file"),
        (b"\x02" + bytes(7) + b"{}more", "cannot be read: 4 extra bytes at the end"),
    ],
)
def test_info_of_damaged_weights(refused, tmp_path, content, says):
    shutil.copytree(TINY, folder := tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.unlink() if content is None else weights.write_bytes(content)
    refused("models", "info", folder, code=1, says=says, hint="copy the folder again")


def test_info_of_cut_weights(refused, tmp_path):
    shutil.copytree(TINY, folder := tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    refused(
        "models", "info", folder, code=1, says="cannot be read: the file is truncated", hint="copy"
    )


def snapshot(cache, name="someone/model", commit="c" * 40):
    """A folder of the Hub's cache with the bundled model in it."""
    storage = cache / f"models--{name.replace('/', '--')}"
    (storage / "refs").mkdir(parents=True)
    (storage / "refs" / "main").write_text(commit)
    return shutil.copytree(TINY, storage / "snapshots" / commit)


@pytest.mark.parametrize("command", [("info",), ("pull", "--offline")])
def test_damaged_downloads_are_mended_by_pull(refused, tmp_path, command):
    weights = snapshot(tmp_path / "cache") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    pull = "`malmm models pull someone/model` repairs it"
    command = ("models", command[0], "someone/model", *command[1:])
    refused(*command, code=1, says="cannot be read: the file is truncated", hint=pull)


@pytest.mark.parametrize(
    "lost", ["qformer_tokenizer/tokenizer.json", "tokenizer.json", "model.safetensors"]
)
def test_a_download_that_lacks_a_file_is_not_here(malmm, refused, tmp_path, lost):
    folder = snapshot(tmp_path / "cache")
    assert json.loads(malmm("models", "info", "someone/model", "--json").out)["here"]
    (folder / lost).unlink()
    about = json.loads(malmm("models", "info", "someone/model", "--json").out)
    assert not about["here"]
    options = ("someone/model", "--offline")
    refused("models", "pull", *options, code=1, says="not fully downloaded", hint="while online")


def test_what_has_arrived_is_told(malmm, tmp_path):
    folder = snapshot(tmp_path / "cache", KNOWN["vicuna-13b"].repository)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    weights = folder / "model.safetensors"
    blobs = folder.parents[1] / "blobs"
    blobs.mkdir()
    with (blobs / "0123.incomplete").open("wb") as file:
        file.truncate(10**9)
    size += 10**9 - weights.stat().st_size
    weights.unlink()
    about = json.loads(malmm("models", "info", "vicuna-13b", "--json").out)
    assert (about["here"], about["arrived"]) == (False, size)
    assert (
        "folder      partly downloaded: 1.0 of 28.4 GB" in malmm("models", "info", "vicuna-13b").out
    )
    rows = {line[2:].split()[0]: line for line in malmm("models").out.splitlines()}
    assert rows["vicuna-13b"].endswith("  3 %")


def pulled(cache, name):
    """A model of the Hub's cache as its client leaves it: with blobs, and links to them."""
    folder = snapshot(cache, KNOWN[name].repository, KNOWN[name].revision or "c" * 40)
    blobs = folder.parents[1] / "blobs"
    blobs.mkdir()
    for number, file in enumerate(path for path in folder.rglob("*") if path.is_file()):
        blob = blobs / f"{number:040}"
        file.rename(blob)
        file.symlink_to(os.path.relpath(blob, file.parent))
    return folder


def test_a_download_is_removed(malmm, tmp_path):
    whole = 40 + sum(path.stat().st_size for path in TINY.rglob("*") if path.is_file())  # a ref
    storage, other = (pulled(tmp_path / "cache", x).parents[1] for x in ("vicuna-7b", "flan-t5-xl"))
    about = json.loads(malmm("models", "info", "vicuna-7b", "--json").out)
    assert (about["here"], about["size"]) == (True, whole)
    done = malmm("models", "rm", "vicuna-7b", "--yes")
    assert (done.code, done.out) == (0, "vicuna-7b\n")
    assert f"{hub.size_text(whole)} freed" in done.err
    assert not storage.exists()
    assert other.exists()
    assert not json.loads(malmm("models", "info", "vicuna-7b", "--json").out)["here"]


def test_half_a_download_is_removed_too(malmm, tmp_path):
    blobs = tmp_path / "cache" / "models--someone--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "0123.incomplete").write_bytes(bytes(1000))
    assert malmm("models", "rm", "someone/model", "-y").out == "someone/model\n"
    assert not blobs.parent.exists()


@pytest.mark.parametrize(
    ("names", "says", "hint"),
    [
        (["tiny"], "tiny is part of malmm", "pip uninstall malmm"),
        (["flan-t5-xl"], "flan-t5-xl is not downloaded", "malmm models list"),
        (["vicuna-7b"], "not removed: no terminal to ask on", "--yes"),
        (["vicuna7b"], "unknown model", "vicuna-7b"),
    ],
)
def test_what_is_not_removed(refused, tmp_path, names, says, hint):
    folder = pulled(tmp_path / "cache", "vicuna-7b")
    yes = [] if names == ["vicuna-7b"] else ["--yes"]
    refused("models", "rm", *names, *yes, code=2, says=says, hint=hint)
    assert folder.exists()


def test_nothing_is_removed_where_one_name_is_wrong(refused, tmp_path):
    folder = pulled(tmp_path / "cache", "vicuna-7b")
    refused("models", "rm", "vicuna-7b", "tiny", "--yes", code=2, says="part of malmm", hint="")
    assert folder.exists()


def test_a_folder_of_ones_own_is_not_removed(refused, tmp_path):
    shutil.copytree(TINY, folder := tmp_path / "model")
    refused("models", "rm", folder, "--yes", code=2, says="is not a download", hint="yourself")
    assert folder.exists()


@pytest.mark.parametrize(("answer", "goes"), [("y\n", True), ("\n", False), ("n\n", False)])
def test_it_asks_on_a_terminal(malmm, tmp_path, monkeypatch, answer, goes):
    folder = pulled(tmp_path / "cache", "vicuna-7b")
    monkeypatch.setattr("sys.stdin", stdin := io.StringIO(answer))
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    done = malmm("models", "rm", "vicuna-7b")
    assert "remove vicuna-7b" in done.err
    assert folder.exists() is not goes
    assert (done.code, done.out) == ((0, "vicuna-7b\n") if goes else (0, ""))


def test_a_download_in_the_making_is_not_removed(refused, tmp_path):
    folder = pulled(tmp_path / "cache", "vicuna-7b")
    with hub_lock(tmp_path / "cache" / ".locks" / folder.parents[1].name):
        refused("models", "rm", "vicuna-7b", "-y", code=1, says="is being downloaded", hint="later")
    assert folder.exists()


@contextmanager
def hub_lock(folder):
    folder.mkdir(parents=True)
    with WeakFileLock(folder / "malmm.lock"):
        yield


def test_info_of_a_file(refused, tmp_path):
    (tmp_path / "file").touch()
    refused("models", "info", "./file", code=2, says="a model is a folder", hint="folder")


def test_pull_of_what_is_no_download(malmm):
    assert malmm("models", "pull", "tiny").out == f"{TINY}\n"
    assert json.loads(malmm("models", "pull", "tiny", "--json").out)["folder"] == str(TINY)


def test_a_pull_of_the_default_is_answered_by_itself(refused):
    hint = (
        "hint: vicuna-7b (15.8 GB, research only): while online, run: malmm models pull vicuna-7b"
    )
    refused("models", "pull", "vicuna-7b", "--offline", code=1, says="not fully", hint=hint)


@pytest.mark.parametrize("command", ["info", "pull"])
def test_names_of_nothing(refused, command):
    refused("models", command, "vicuna7b", code=2, says="unknown model", hint="mean vicuna-7b?")


@pytest.mark.parametrize(
    ("name", "dtype", "gigabytes", "hint"),
    [
        ("vicuna-13b", "float32", 40, "--dtype bfloat16"),
        ("vicuna-13b", "bfloat16", 17, "--quantize 8bit --dtype float16"),
        ("vicuna-13b", "float16", 12, "--quantize 4bit --dtype float16"),
        ("qwen3-vl-8b", "bfloat16", 8, "--quantize 4bit --dtype float16"),
    ],
)
def test_what_would_fit_is_named(name, dtype, gigabytes, hint, monkeypatch):
    monkeypatch.setattr("malmm_cli.hub.advice.find_spec", lambda _: object())
    known = KNOWN[name]
    with pytest.raises(CapacityError) as caught:
        hub.check_memory(name, known.parameters, dtype, gigabytes * 10**9)
    assert f"{gigabytes}.0 GB is free: " in caught.value.message
    assert caught.value.hint == (
        f"{name} ({hub.size_text(known.download)}, {known.licence.split(' (')[0]}) fits with "
        f"{hint}; "
        f"while online, run: malmm models pull {name}"
    )


def test_what_fits_is_let_through():
    parameters = KNOWN["vicuna-7b"].parameters
    hub.check_memory("vicuna-7b", parameters, "float16", 2 * parameters)
    hub.check_memory("vicuna-7b", parameters, "float32", None)
    assert machine.free_memory() > 10**8
