"""The authors' checkpoints, laid over a base, become folders that load like any other."""

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable

import pytest
import torch
from helpers import reference
from safetensors.torch import load_file, save_file

from malmm_cli import hub
from malmm_cli.checkpoints.state import read_state, write_state
from malmm_cli.cli import run
from malmm_cli.errors import ModelError
from malmm_cli.models.instructblip.convert import convert, rename
from malmm_cli.models.instructblip.load import load

CHECKPOINTS = {"pth": reference.pickled, "safetensors": reference.checkpoint}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The reference's base model as a folder of the published layout, in two shards."""
    folder = tmp_path_factory.mktemp("base")
    net = reference.model("base")
    (folder / "config.json").write_text(json.dumps(reference.config().to_dict()))
    net.texts.language.save_pretrained(folder)
    net.texts.instruction.save_pretrained(folder / "qformer_tokenizer")
    state = {k: v for k, v in reference.weights("base").items() if k != "position_embedding.weight"}
    write_state(folder, state, max_shard_size="400KB")
    assert (folder / "model.safetensors.index.json").exists()
    return folder


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("which", ["base", "finetuned"])
def test_loads_as_the_reference(base, tmp_path, which, suffix, capsys):
    out = tmp_path / "out"
    checkpoint = CHECKPOINTS[suffix](which)
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
    convert(reference.pickled("finetuned"), base, first)
    whole = tmp_path / "whole.safetensors"
    save_file(read_state(first), whole)
    convert(whole, first, second)
    assert same(read_state(first), read_state(second))


def test_renaming_is_pure():
    state = load_file(reference.checkpoint("base"))
    before = dict(state)
    once = rename(state)
    assert same(state, before)
    assert same(rename(once), once)


def checkpoint(path, which="finetuned", change: Callable[[dict], object] = dict):
    """One of the golden checkpoints, changed, in a file of the authors' form."""
    state = load_file(reference.checkpoint(which))
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
        ("finetuned", dict.clear, ["contains no tensors"], "another checkpoint"),
        (
            "finetuned",
            lambda s: [s.pop(name) for name in list(s) if name != QFORMER_BIAS],
            ["1 of the 112 tensors of qformer", "missing qformer.embeddings.layernorm.weight"],
            "complete or absent",
        ),
        (
            "base",
            without("Qformer.bert.encoder.layer.0."),
            ["80 of the 112 tensors of qformer", "missing qformer.encoder.layer.0 (32 tensors)"],
            "complete or absent",
        ),
        (
            "base",
            lambda s: s.pop("llm_model.lm_head.weight"),
            ["of language_model", "missing language_model.lm_head.weight"],
            "complete or absent",
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
        ("finetuned", lambda s: s.update({1: torch.ones(2)}), ["has no state dict"], "'model'"),
        (
            "finetuned",
            lambda s: s.update({k: v.double() + 1e300 for k, v in s.items() if "Qformer" in k}),
            ["NaN or infinite", "qformer (112 tensors)"],
            "another checkpoint",
        ),
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
    whole = str(reference.pickled("base"))
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
    path = reference.pickled("finetuned")
    error, hint = refused(capsys, path, other, tmp_path / "out")
    assert "'bert'" in error
    assert "known type" in hint


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
    assert "disk space" in hint


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
        ("garbage.pth", 1, "is not a checkpoint", "torch.save"),
        ("empty.pth", 1, "is empty", "copy the file again"),
        ("cut.pth", 1, "is cut off or damaged", "copy the file again"),
        ("zip.pth", 1, "is not a checkpoint", "torch.save"),
        ("garbage.safetensors", 1, "not a safetensors file", "copy"),
        ("number.pth", 1, "has no state dict", "'model'"),
        ("folder", 2, "is a folder", ".pth"),
        ("missing.pth", 2, "no such file", "path"),
        ("/dev/null", 2, "is not a regular file", ".pth"),
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
    path = reference.pickled("base")
    error, hint = refused(capsys, path, base, tmp_path / name, 2)
    assert "exists and is not an empty folder" in error
    assert hint == "hint: choose a new folder"


def test_base_must_be_whole(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        convert(reference.pickled("base"), tmp_path, tmp_path / "out")


SHAPE = (1, 8, 48)  # of the query tokens


def quantized():
    return torch.quantize_per_tensor(torch.zeros(SHAPE), 0.1, 0, torch.qint8)


@pytest.mark.filterwarnings("ignore")  # of torch, of layouts that are its prototypes
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: torch.empty(SHAPE, device="meta"), "query_tokens is on the meta device"),
        (lambda: torch.zeros(SHAPE).to_sparse(), "query_tokens is a sparse_coo tensor"),
        (lambda: torch.zeros(8, 48).to_sparse_csr(), "query_tokens is a sparse_csr tensor"),
        (lambda: torch.nested.nested_tensor([torch.zeros(3)]), "query_tokens is a nested tensor"),
        (quantized, "query_tokens is quantized (qint8)"),
        (lambda: torch.zeros(1).expand(10**6, 10**6), "larger than the file"),
        (lambda: torch.zeros(SHAPE, dtype=torch.complex64), "query_tokens is complex64"),
        (lambda: torch.zeros(SHAPE, dtype=torch.bool), "query_tokens is bool"),
        (lambda: torch.zeros(SHAPE).to(torch.float8_e4m3fn), "query_tokens is float8_e4m3fn"),
        (lambda: torch.tensor(1.0), "query_tokens is ()"),
        (lambda: torch.zeros(SHAPE[1:]), "query_tokens is (8, 48)"),
        (lambda: torch.zeros(0), "query_tokens is (0,)"),
    ],
)
def test_tensors_of_odd_kinds(base, tmp_path, make, says, capsys):
    path = tmp_path / "odd.pth"
    torch.save({"model": {"query_tokens": make()}}, path)
    error, _ = refused(capsys, path, base, tmp_path / "out")
    assert error.startswith(f"error: {path}")
    assert says in error


@pytest.mark.parametrize("shape", [(), (3, 40), (41,)])
def test_a_position_table_of_another_shape(base, tmp_path, shape, capsys):
    path = tmp_path / "odd.pth"
    torch.save({"model": {"image_pe.weight": torch.zeros(shape)}}, path)
    if shape == (3, 40):
        assert run(["convert", str(path), str(tmp_path / "out"), "--base", str(base)]) == 0
    else:
        error, _ = refused(capsys, path, base, tmp_path / "out")
        assert "position_embedding.weight" in error


@pytest.mark.parametrize(
    "biases",
    [
        {"q_bias": torch.zeros(40), "v_bias": torch.zeros(3)},
        {"q_bias": torch.zeros(()), "v_bias": torch.zeros(())},
        {"q_bias": torch.zeros(40).bool(), "v_bias": torch.zeros(40).bool()},
        {"q_bias": torch.zeros(40), "v_bias": torch.zeros(40, dtype=torch.complex64)},
    ],
)
def test_biases_that_cannot_be_joined(base, tmp_path, biases, capsys):
    path = tmp_path / "odd.pth"
    torch.save({f"{FIRST_ATTENTION}.{name}": value for name, value in biases.items()}, path)
    error, _ = refused(capsys, path, base, tmp_path / "out")
    assert "must be a floating point vector as long as" in error


def test_tensors_that_share_their_numbers_are_all_written(base, tmp_path):
    """Expanded, transposed, cut out of one another, learnable: what counts are the numbers."""
    whole = load_file(reference.checkpoint("finetuned"))
    path = tmp_path / "plain.pth"
    norms = [name for name in whole if name.endswith("LayerNorm.weight")]
    shared = torch.linspace(0, 1, 2 * len(whole[norms[0]]))
    due = dict(whole)
    for index, name in enumerate(norms):
        whole[name] = shared[: len(whole[name])] if index else shared[::2]
        due[name] = whole[name].clone()
    bias = next(name for name in whole if name.endswith("llm_proj.bias"))
    whole[bias] = torch.nn.Parameter(torch.ones(1)).expand(whole[bias].shape)
    due[bias] = torch.ones(whole[bias].shape)
    weight = next(name for name in whole if name.endswith("llm_proj.weight"))
    whole[weight] = whole[weight].T.contiguous().T
    for content, name in ((whole, "out"), (due, "due")):
        torch.save({"model": content}, path)
        (tmp_path / name).mkdir()
        convert(path, base, tmp_path / name)
    assert same(read_state(tmp_path / "out"), read_state(tmp_path / "due"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_what_is_no_file_is_not_copied_from_the_base(base, tmp_path):
    strange = shutil.copytree(base, tmp_path / "strange")
    for place in (strange, strange / "qformer_tokenizer"):
        os.mkfifo(place / "pipe.md")
        (place / "zero.md").symlink_to("/dev/zero")
        (place / "LICENSE").write_text("mine")
        (place / "huge.bin").touch()
        os.truncate(place / "huge.bin", 2**40)
    (tmp_path / "out").mkdir()
    convert(reference.pickled("finetuned"), strange, tmp_path / "out")
    for place in (tmp_path / "out", tmp_path / "out" / "qformer_tokenizer"):
        assert (place / "LICENSE").read_text() == "mine"
        assert (place / "tokenizer.json").is_file()
        assert not [path for path in place.iterdir() if path.suffix in (".md", ".bin")]


def test_a_compressed_archive(base, tmp_path, capsys):
    """What unpacks to more than it is on the disk is not unpacked."""
    torch.save({"model": {"query_tokens": torch.zeros(10**6)}}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for info in plain.infolist():
            packed.writestr(info.filename, plain.read(info))
    error, hint = refused(capsys, tmp_path / "packed.pth", base, tmp_path / "out")
    assert "is a compressed archive" in error
    assert "zip -0" in hint


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {"model": {"a": {"b": torch.ones(1)}}},
        {"model": {}},
        {"model": {"a": [torch.ones(1)]}},
        {"model": {b"a": torch.ones(1)}},
    ],
)
def test_content_that_is_no_state_dict(base, tmp_path, content, capsys):
    torch.save(content, tmp_path / "odd.pth")
    error, _ = refused(capsys, tmp_path / "odd.pth", base, tmp_path / "out")
    assert "has no state dict" in error or "contains no tensors" in error


def test_a_nest_without_an_end(base, tmp_path, capsys):
    nest = b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b"."
    (tmp_path / "odd.pth").write_bytes(nest)
    refused(capsys, tmp_path / "odd.pth", base, tmp_path / "out")
