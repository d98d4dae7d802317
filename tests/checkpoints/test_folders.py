"""Model folders of strangers: files that are none, numbers beyond reason, headers that lie.

Each is refused in one line before anything is built or read without bound.
"""

import json
import os
import shutil
import struct
import sys
import time

import pytest
import torch
from helpers.commands import FAST, SAMPLE
from safetensors.torch import load_file, save_file

from malmm_cli.checkpoints.layout import read_header, read_json
from malmm_cli.datasets.tasks import read_tasks
from malmm_cli.errors import MalmmError, ModelError
from malmm_cli.models.instructblip.load import check_state, load

FILES = [
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"),
    *("special_tokens_map.json", "tokenizer.model", "model.safetensors.index.json"),
    *("model.safetensors", "qformer_tokenizer/tokenizer.json", "qformer_tokenizer/vocab.txt"),
]


@pytest.fixture
def folder(vicuna_folder, tmp_path):
    return shutil.copytree(vicuna_folder, tmp_path / "model")


def huge(path):
    """As large as the largest disk, without a byte on it."""
    path.touch()
    os.truncate(path, 2**40)


PUT = {
    "a pipe": os.mkfifo if sys.platform != "win32" else None,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "huge": huge,
}


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
@pytest.mark.parametrize("kind", PUT)
@pytest.mark.parametrize("name", FILES)
def test_only_regular_files_of_a_bounded_size_are_read(refused, folder, name, kind):
    path = folder / name
    path.unlink(missing_ok=True)
    PUT[kind](path)
    says = os.path.basename(name) if name.startswith("qformer") else name
    if name == "model.safetensors" and kind == "huge":
        says = "not a safetensors file"
    refused("caption", SAMPLE, "-q", "--model", folder, code=1, says=says, hint="hint: ")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes")
def test_a_batch_is_told_too(malmm, folder, clip, tmp_path, monkeypatch):
    """It reads the ends of all files, to know the model again."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo(folder / "qformer_tokenizer" / "vocab.txt")
    done = malmm("batch", clip, "-o", "out.jsonl", *FAST, "--model", folder)
    assert done.code == 1
    assert "qformer_tokenizer/vocab.txt: cannot be read: not a regular file" in done.err
    assert "Traceback" not in done.err


def reconfigured(folder, part, **values):
    path = folder / "config.json"
    content = json.loads(path.read_text("utf-8"))
    (content[part] if part else content).update(values)
    path.write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize(
    ("part", "values", "says"),
    [
        *(
            (part, {"num_hidden_layers": 10**9}, f"{part}.num_hidden_layers is 1000000000, but")
            for part in ("vision_config", "qformer_config", "text_config")
        ),
        ("text_config", {"num_hidden_layers": 10**30}, "but the weights have 3 layers"),
        ("vision_config", {"hidden_size": 10**9}, "config.json: does not describe a valid model"),
        ("text_config", {"hidden_size": 10**9}, "wrong shape: "),
        ("text_config", {"vocab_size": 10**12}, "wrong shape: "),
        ("text_config", {"intermediate_size": 10**9}, "wrong shape: "),
        (
            "text_config",
            {"max_position_embeddings": "all"},
            "config.json: does not describe a valid model",
        ),
        ("qformer_config", {"hidden_size": 10**9}, "wrong shape: "),
        (
            "qformer_config",
            {"cross_attention_frequency": 0},
            "config.json: does not describe a valid model",
        ),
        (
            "qformer_config",
            {"num_attention_heads": 0},
            "config.json: does not describe a valid model",
        ),
        (
            "qformer_config",
            {"num_attention_heads": 7},
            "config.json: does not describe a valid model",
        ),
        (
            "vision_config",
            {"num_attention_heads": 7},
            "config.json: does not describe a valid model",
        ),
        ("vision_config", {"patch_size": 0}, "patch_size is 0 but must be at least 1"),
        ("vision_config", {"hidden_size": 0}, "vision_config.hidden_size is 0 but must be"),
        ("vision_config", {"hidden_size": -1}, "vision_config.hidden_size is -1 but must be"),
        ("text_config", {"intermediate_size": 0}, "text_config.intermediate_size is 0"),
        ("qformer_config", {"vocab_size": -(2**70)}, "qformer_config.vocab_size is -1180"),
        ("vision_config", {"patch_size": [8, 8]}, "config.json: does not describe a valid model"),
        ("vision_config", {"patch_size": -8}, "config.json: does not describe a valid model"),
        ("vision_config", {"image_size": 10**9}, "64 × 64"),
        (
            "vision_config",
            {"num_hidden_layers": True},
            "config.json: does not describe a valid model",
        ),
        (
            "vision_config",
            {"layer_norm_eps": "small"},
            "config.json: does not describe a valid model",
        ),
        ("text_config", {"hidden_act": "nothing"}, "config.json: does not describe a valid model"),
        ("text_config", {"model_type": "nothing"}, "config.json: does not describe a valid model"),
        ("text_config", {"quantization_config": {"load_in_8bit": True}}, "quantized"),
        (None, {"quantization_config": {"quant_method": "gptq"}}, "quantized"),
        (None, {"num_query_tokens": 10**9}, "wrong shape: query_tokens"),
        (None, {"vision_config": 3}, "config.json: does not describe a valid model"),
        (None, {"text_config": []}, "config.json: does not describe a valid model"),
    ],
)
def test_numbers_are_held_against_the_weights(refused, folder, part, values, says):
    if "image_size" not in values:
        (folder / "preprocessor_config.json").unlink()
    else:
        says = "the image encoder takes 1000000000 × 1000000000"
    reconfigured(folder, part, **values)
    refused("caption", SAMPLE, "-q", "--model", folder, code=1, says=says, hint="hint: ")


def test_names_without_numbers_make_no_room_for_layers(folder):
    reconfigured(folder, "text_config", num_hidden_layers=900)
    parts = [("language_model", 900), ("vision_model", 3), ("qformer", 4)]
    names = [f"{part}.layers.{n}.a" for part, layers in parts for n in range(layers)]
    state = dict.fromkeys(names, torch.ones(1))
    with pytest.raises(ModelError, match="needs more parameters than the 907"):
        check_state(state, folder, where="here")


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation"])
def test_packages_that_a_configuration_wants_are_not_needed(folder, key):
    reconfigured(folder, "text_config", **{key: "flash_attention_2"})
    reconfigured(folder, None, **{key: "flash_attention_3"})
    assert load(folder).num_queries == 8


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("output_attentions", True),
        ("output_hidden_states", True),
        ("return_dict", False),
        ("is_encoder_decoder", True),
        ("bos_token_id", 2**70),
        ("decoder_start_token_id", "x"),
    ],
)
def test_how_a_configuration_wants_to_run_changes_no_answer(malmm, folder, key, value):
    ask = ("caption", SAMPLE, "-q", "--model", folder, "--frames", 2, "--max-new-tokens", 3)
    due = malmm(*ask).out
    for part in (None, "vision_config", "qformer_config", "text_config"):
        reconfigured(folder, part, **{key: value})
    assert malmm(*ask).out == due


def test_transformers_own_warnings_are_not_passed_on(folder):
    """They are about names of keys, and for those who write such files."""
    reconfigured(folder, "vision_config", rope_scaling={})
    assert load(folder).num_queries == 8


def loads_or_is_told(folder):
    """Whether the model loads, or only ModelError tells of its tokenizer."""
    try:
        return bool(load(folder).num_queries)
    except ModelError as error:
        return "the tokenizer cannot be read" in error.message


def test_code_of_a_folder_is_never_run_nor_asked_for(refused, folder, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question"))
    (folder / "evil.py").write_text("raise SystemExit('this code ran')")
    path = folder / "tokenizer_config.json"
    own = {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}, "tokenizer_class": "Evil"}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    reconfigured(folder, None, auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    assert loads_or_is_told(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": NaN}', "NaN is not a finite number"),
        ('{"a": [-Infinity]}', "-Infinity is not a finite number"),
        ('{"a": 1e999}', "1e999 is not a finite number"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "duplicate key 'c'"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"a": ' * 10**5, "not valid JSON"),
        ('{"a": "' + "x" * 16_000_000 + '"}', "too large: 16 MB, but the limit is 16 MB"),
    ],
)
def test_json_that_is_not_taken(tmp_path, text, says):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ModelError) as caught:
        read_json(path)
    assert says in caught.value.message


@pytest.mark.parametrize("read", [read_json, read_tasks])
def test_many_keys_of_which_the_last_comes_twice(tmp_path, read):
    path = tmp_path / "many.json"
    keys = ", ".join(f'"k{number}": 0' for number in range(200_000))
    path.write_text(f'{{{keys}, "k199999": 1}}')
    begun = time.process_time()
    with pytest.raises(MalmmError, match="duplicate key"):
        read(path)
    assert time.process_time() - begun < 20


def with_header(path, header, numbers=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + numbers)


def tensor(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("header", "more", "says"),
    [
        ({"a": tensor()}, {"length": 2**60}, "not a safetensors file"),
        ({"a": tensor()}, {"length": 2**64 - 1}, "not a safetensors file"),
        ({"a": tensor(), "b": tensor()}, {}, "overlap"),
        ({"a": tensor(offsets=(4, 8))}, {"numbers": bytes(8)}, "gaps"),
        ({"a": tensor(offsets=(0, 2**62))}, {}, "not a safetensors file"),
        ({"a": tensor(shape=(2,))}, {}, "not a safetensors file"),
        ({"a": tensor(shape=(-1,))}, {}, "not a safetensors file"),
        ({"a": tensor(shape=(10**30, 0), offsets=(0, 0))}, {"numbers": b""}, "not a safetensors"),
        ({"a": tensor(shape=(1,) * 10**5)}, {}, "not a safetensors file"),
        ({"a": tensor(shape=(1.0,))}, {}, "not a safetensors file"),
        ({"a": tensor(shape="1")}, {}, "not a safetensors file"),
        ({"a": tensor(offsets=(0,))}, {}, "not a safetensors file"),
        ({"a": {"dtype": "F32"}}, {}, "not a safetensors file"),
        ({"a": tensor("F8_E4M3", offsets=(0, 1))}, {"numbers": b"1"}, "a as F8_E4M3"),
        ({"a": tensor("F4", offsets=(0, 1))}, {"numbers": b"1"}, "a as F4"),
        (b'{"a": {"dtype": "F32"}, "a": 1}', {}, "duplicate key"),
        (b'{"a": ' + b"[" * 10**5, {}, "not a safetensors file"),
        (b"[]", {}, "not a safetensors file"),
        (b"", {}, "not a safetensors file"),
    ],
)
def test_headers_that_lie(tmp_path, header, more, says):
    path = tmp_path / "model.safetensors"
    with_header(path, header, **{"numbers": bytes(4), **more})
    with pytest.raises(ModelError) as caught:
        read_header(path)
    assert says in caught.value.message


def test_one_tensor_in_two_files(write_model, tmp_path):
    folder = shutil.copytree(write_model("vicuna", max_shard_size="1MB"), tmp_path / "model")
    first, second, *_ = sorted(folder.glob("*.safetensors"))
    state = load_file(second)
    name, value = next(iter(load_file(first).items()))
    save_file(state | {name: value * 0}, second, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"{name} appears in more than one weights file"):
        load(folder)


@pytest.mark.parametrize("name", ["", "qformer_tokenizer"])
@pytest.mark.parametrize(
    "change",
    [
        {"model_max_length": {}},
        {"tokenizer_class": "Nothing"},
        {"eos_token": 7},
        {"added_tokens_decoder": []},
        {"extra_special_tokens": 3},
    ],
)
def test_a_tokenizer_that_fails_when_it_is_used(folder, name, change):
    path = folder / name / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert loads_or_is_told(folder)


def test_words_beyond_the_embeddings(refused, folder):
    """Few words, of which one has a number that is too large."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "</s>"]
    content["model"]["vocab"]["zebra"] = 10**6
    path.write_text(json.dumps(content), "utf-8")
    refused("caption", SAMPLE, "-q", "--model", folder, code=1, says="has 1000001 tokens")
