"""The authors' checkpoints, laid over a base, become folders that load like any other."""

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable

import pytest
import reference
import torch
from safetensors.torch import load_file, save_file

from malmm_cli import hub
from malmm_cli.cli import run
from malmm_cli.convert import convert, rename
from malmm_cli.errors import ModelError
from malmm_cli.models import load, weights

CHECKPOINTS = reference.FOLDER / "full"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The reference's base model as a folder of the published layout, in two shards."""
    folder = tmp_path_factory.mktemp("base")
    net = reference.model("base")
    (folder / "config.json").write_text(json.dumps(reference.config().to_dict()))
    net.texts.language.save_pretrained(folder)
    net.texts.instruction.save_pretrained(folder / "qformer_tokenizer")
    state = {k: v for k, v in reference.weights("base").items() if k != "position_embedding.weight"}
    weights.write_state(folder, state, max_shard_size="400KB")
    assert (folder / "model.safetensors.index.json").exists()
    return folder


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("which", ["base", "finetuned"])
def test_loads_as_the_reference(base, tmp_path, which, suffix, capsys):
    out = tmp_path / "out"
    checkpoint = CHECKPOINTS / f"checkpoint_{which}.{suffix}"
    assert run(["convert", str(checkpoint), str(out), "--base", str(base)]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "tensors of" in said.err
    assert same(load(out).state_dict(), reference.model(which).state_dict())
    assert load(out).position_embedding is not None


def test_twice_is_once(base, tmp_path):
    """What was converted is a base, and a checkpoint, in its turn."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    convert(CHECKPOINTS / "checkpoint_finetuned.pth", base, first)
    whole = tmp_path / "whole.safetensors"
    save_file(weights.read_state(first), whole)
    convert(whole, first, second)
    assert same(weights.read_state(first), weights.read_state(second))


def test_renaming_is_pure():
    state = load_file(CHECKPOINTS / "checkpoint_base.safetensors")
    before = dict(state)
    once = rename(state)
    assert same(state, before)
    assert same(rename(once), once)


def checkpoint(path, which="finetuned", change: Callable[[dict], object] = dict):
    """One of the golden checkpoints, changed, in a file of the authors' form."""
    state = load_file(CHECKPOINTS / f"checkpoint_{which}.safetensors")
    change(state)
    torch.save({"model": state}, path)
    return path


def refused(capsys, path, base, out, code=1):
    """What is said of a checkpoint that is refused: an error, a hint, and nothing is written."""
    before = sorted(out.parent.iterdir())
    assert run(["convert", str(path), str(out), "--base", str(base)]) == code
    said = capsys.readouterr()
    assert said.out == ""
    error, hint = said.err.splitlines()
    assert (error[:7], hint[:6]) == ("error: ", "hint: ")
    assert sorted(out.parent.iterdir()) == before, "something half-written is left"
    return error, hint


def without(text):
    def change(state):
        for name in [name for name in state if text in name]:
            del state[name]

    return change


QFORMER_BIAS = "Qformer.bert.embeddings.LayerNorm.bias"
FIRST_ATTENTION = "visual_encoder.blocks.0.attn"


@pytest.mark.parametrize(
    ("which", "change", "says", "next_step"),
    [
        (
            "finetuned",
            lambda s: s.update({f"Qformer.extra.{i}": torch.ones(2) for i in range(60)}),
            [f"Qformer.extra.{i}" for i in range(60)],
            "--base",
        ),
        (
            "finetuned",
            lambda s: s.update({"llm_proj.bias": torch.ones(3)}),
            ["language_projection.bias is (3,)"],
            "--base",
        ),
        (
            "finetuned",
            lambda s: s.update({"image_pe.weight": torch.zeros(120, 41)}),
            ["position_embedding.weight is (120, 41), not (120, 40)"],
            "--base",
        ),
        ("finetuned", dict.clear, ["holds no tensors"], "another checkpoint"),
        (
            "finetuned",
            lambda s: [s.pop(name) for name in list(s) if name != QFORMER_BIAS],
            ["1 of the 112 tensors of qformer", "missing qformer.embeddings.layernorm.weight"],
            "whole or not at all",
        ),
        (
            "base",
            without("Qformer.bert.encoder.layer.0."),
            ["80 of the 112 tensors of qformer", "missing qformer.encoder.layer.0 (32 tensors)"],
            "whole or not at all",
        ),
        (
            "base",
            lambda s: s.pop("llm_model.lm_head.weight"),
            ["of language_model", "missing language_model.lm_head.weight"],
            "whole or not at all",
        ),
        (
            "base",
            lambda s: s.pop(f"{FIRST_ATTENTION}.q_bias"),
            [f"{FIRST_ATTENTION}.v_bias without q_bias"],
            "another checkpoint",
        ),
        (
            "base",
            lambda s: s.pop(f"{FIRST_ATTENTION}.v_bias"),
            [f"{FIRST_ATTENTION}.q_bias without v_bias"],
            "another checkpoint",
        ),
        ("finetuned", lambda s: s.update({1: torch.ones(2)}), ["holds no state dict"], "'model'"),
        (
            "finetuned",
            lambda s: s.update({k: v * float("nan") for k, v in s.items() if "Qformer" in k}),
            ["NaN or infinite", "qformer (112 tensors)"],
            "another checkpoint",
        ),
        (
            "finetuned",
            lambda s: s.update({QFORMER_BIAS: s[QFORMER_BIAS].int()}),
            ["qformer.embeddings.layernorm.bias", "int32"],
            "floating point",
        ),
    ],
)
def test_nothing_is_swallowed(base, tmp_path, which, change, says, next_step, capsys):
    path = checkpoint(tmp_path / "broken.pth", which, change)
    error, hint = refused(capsys, path, base, tmp_path / "out")
    assert all(text in error for text in says), error
    assert next_step in hint


def test_what_comes_from_the_base_is_listed(base, tmp_path, capsys):
    whole = str(CHECKPOINTS / "checkpoint_base.pth")
    assert run(["convert", whole, str(tmp_path / "whole"), "--base", str(base)]) == 0
    assert "from the base" not in capsys.readouterr().err
    path = checkpoint(tmp_path / "trained.pth", change=without("image_pe"))
    assert run(["convert", str(path), str(tmp_path / "out"), "--base", str(base)]) == 0
    said = capsys.readouterr().err
    assert "117 tensors of" in said
    assert "vision_model.encoder (24 tensors)" in said
    assert "language_model (21 tensors)" in said
    assert "no position table" in said
    assert load(tmp_path / "out").position_embedding is None


def test_a_base_of_another_kind(base, tmp_path, capsys):
    other = shutil.copytree(base, tmp_path / "other")
    (other / "config.json").write_text('{"model_type": "bert"}')
    path = CHECKPOINTS / "checkpoint_finetuned.pth"
    error, hint = refused(capsys, path, other, tmp_path / "out")
    assert "'bert'" in error
    assert "InstructBLIP" in hint


def test_the_checkpoint_is_read_before_the_base_is_fetched(tmp_path, capsys, monkeypatch):
    def locate(*_, **__):
        raise AssertionError("15 GB would have been fetched for nothing")

    monkeypatch.setattr(hub, "locate", locate)
    (tmp_path / "garbage.pth").write_bytes(b"garbage" * 100)
    refused(capsys, tmp_path / "garbage.pth", "vicuna-7b", tmp_path / "out")


def test_a_full_disk(base, tmp_path, capsys):
    resource = pytest.importorskip("resource")
    path = checkpoint(tmp_path / "good.pth")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        error, hint = refused(capsys, path, base, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "out: cannot be written: " in error
    assert "room" in hint


class Dangerous:
    def __reduce__(self):
        return (print, ("this code ran",))


@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_runs(base, tmp_path, zipped, capsys):
    path = tmp_path / "bad.pth"
    state = {"model": Dangerous()}
    torch.save(state, path) if zipped else path.write_bytes(pickle.dumps(state))
    assert run(["convert", str(path), str(tmp_path / "out"), "--base", str(base)]) == 1
    said = capsys.readouterr()
    assert "this code ran" not in said.out + said.err
    assert said.err.startswith("error: ")
    assert "weights_only" in said.err


def write_bad_files(folder):
    """Files that are no checkpoint, each in its own way."""
    (folder / "garbage.pth").write_bytes(b"not a checkpoint at all" * 100)
    (folder / "empty.pth").touch()
    (folder / "garbage.safetensors").write_bytes(b"not a checkpoint at all" * 100)
    torch.save({"model": 3}, folder / "number.pth")
    with zipfile.ZipFile(folder / "zip.pth", "w") as archive:
        archive.writestr("a.txt", "hello")
    whole = checkpoint(folder / "cut.pth").read_bytes()
    (folder / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (folder / "folder").mkdir()
    (folder / "exists").mkdir()
    (folder / "exists" / "precious").touch()
    (folder / "dangling").symlink_to("nowhere")


@pytest.mark.parametrize(
    ("name", "code", "says", "next_step"),
    [
        ("garbage.pth", 1, "is no checkpoint", "torch.save"),
        ("empty.pth", 1, "is empty", "copy it again"),
        ("cut.pth", 1, "is cut off or damaged", "copy it again"),
        ("zip.pth", 1, "is no checkpoint", "torch.save"),
        ("garbage.safetensors", 1, "is no safetensors file", "copy"),
        ("number.pth", 1, "holds no state dict", "'model'"),
        ("folder", 2, "is a folder", ".pth"),
        ("missing.pth", 2, "there is no such file", "path"),
        ("/dev/null", 2, "is no regular file", ".pth"),
    ],
)
def test_bad_files(base, tmp_path, name, code, says, next_step, capsys):
    write_bad_files(tmp_path)
    error, hint = refused(capsys, tmp_path / name, base, tmp_path / "out", code)
    assert error.startswith(f"error: {tmp_path / name}: ")
    assert says in error
    assert next_step in hint


@pytest.mark.parametrize("name", ["exists", "dangling"])
def test_a_folder_that_is_there(base, tmp_path, name, capsys):
    write_bad_files(tmp_path)
    path = CHECKPOINTS / "checkpoint_base.pth"
    error, hint = refused(capsys, path, base, tmp_path / name, 2)
    assert "exists and is not an empty folder" in error
    assert hint == "hint: name a new one"


def test_base_must_be_whole(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        convert(CHECKPOINTS / "checkpoint_base.pth", tmp_path, tmp_path / "out")
