"""The authors' checkpoints, laid over a base, become folders that load like any other."""

import json
import pickle
import shutil

import pytest
import reference
import torch
from safetensors.torch import load_file, save_file

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


def broken(base, tmp_path, change):
    state = load_file(CHECKPOINTS / "checkpoint_finetuned.safetensors")
    change(state)
    path = tmp_path / "broken.pth"
    torch.save({"model": state}, path)
    out = tmp_path / "out"
    code = run(["convert", str(path), str(out), "--base", str(base)])
    assert not out.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["broken.pth"], "something half-written is left"
    return code


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            lambda s: s.update({"Qformer.bert.extra": torch.ones(2)}),
            "unexpected Qformer.bert.extra",
        ),
        (lambda s: s.update({"llm_proj.bias": torch.ones(3)}), "language_projection.bias is (3,)"),
    ],
)
def test_nothing_is_swallowed(base, tmp_path, change, named, capsys):
    assert broken(base, tmp_path, change) == 1
    assert named in capsys.readouterr().err


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


def test_bad_files(base, tmp_path, capsys):
    garbage, empty, number = (
        tmp_path / name for name in ("garbage.pth", "empty.pth", "number.pth")
    )
    garbage.write_bytes(b"not a checkpoint at all" * 100)
    empty.touch()
    torch.save({"model": 3}, number)
    for path, code in ((garbage, 1), (empty, 1), (number, 1), (tmp_path / "missing.pth", 2)):
        assert run(["convert", str(path), str(tmp_path / "out"), "--base", str(base)]) == code
        said = capsys.readouterr().err
        assert said.startswith(f"error: {path}: ")
        assert "Traceback" not in said
    shutil.copytree(base, tmp_path / "out")
    checkpoint = str(CHECKPOINTS / "checkpoint_base.pth")
    assert run(["convert", checkpoint, str(tmp_path / "out"), "--base", str(base)]) == 2


def test_base_must_be_whole(tmp_path):
    with pytest.raises(ModelError, match="weights are missing"):
        convert(CHECKPOINTS / "checkpoint_base.pth", tmp_path, tmp_path / "out")
