"""The reference cases: numbers that the authors' own code gave on tiny random weights.

They come from the folder `$MALMM_GOLDEN`, or from tests/golden/malmm where that is not set. An
index in the folder lists its files; what a file is for follows from its index entry and from the
tensors it holds, never from its name.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import (
    BertTokenizer,
    InstructBlipConfig,
    LlamaTokenizer,
    T5ForConditionalGeneration,
)

from malmm_cli.models.instructblip.convert import rename
from malmm_cli.models.instructblip.load import build
from malmm_cli.models.instructblip.model import InstructBlip

FOLDER = Path(os.environ.get("MALMM_GOLDEN") or Path(__file__).parents[1] / "golden" / "malmm")
INDEXES = ("index.json", "description.json", "golden.json")

# The reference in float32 is itself 2e-5 away from the reference in float64.
TOLERANCE = 5e-5

# Forms of files with one case: what their tensors' names and their index entry say.
FILES: dict[str, Callable[[set[str], dict], bool]] = {
    "model": lambda names, _: {"video_times32", "llm_inputs_embeds"} <= names,
    "gradient": lambda names, _: {"features", "R"} <= names,
    "memory": lambda names, entry: _is_qformer(names) and entry["M"] > 0,
    "no memory": lambda names, entry: _is_qformer(names) and entry["M"] == 0,
    "base": lambda names, _: _is_checkpoint(names) and _has_language_model(names),
    "finetuned": lambda names, _: _is_checkpoint(names) and not _has_language_model(names),
}
# Forms of cases that share a file. A tie is stored as a stream is, but its entry has no M.
CASES: dict[str, Callable[[set[str], dict], bool]] = {
    "compression": lambda names, _: {"in_bank", "in_size", "out_bank", "out_size"} <= names,
    "stream": lambda names, entry: {"frames", "bank", "size"} <= names and "M" in entry,
    "ties": lambda names, entry: {"frames", "bank", "size"} <= names and "M" not in entry,
}


def _is_qformer(names: set[str]) -> bool:
    return {"features", "text_ids", "query_output"} <= names and "R" not in names


def _is_checkpoint(names: set[str]) -> bool:
    return "query_tokens" in names


def _has_language_model(names: set[str]) -> bool:
    """A fine-tuned file has the language model's buffers only."""
    return any(name.startswith("llm_model.") and name.endswith(".weight") for name in names)


@cache
def index() -> dict:
    """What the folder says of its files."""
    found = [FOLDER / name for name in INDEXES if (FOLDER / name).is_file()]
    assert found, f"{FOLDER} holds none of {', '.join(INDEXES)}"
    return json.loads(found[0].read_text("utf-8"))


@cache
def tensors(name: str) -> dict[str, torch.Tensor]:
    return load_file(FOLDER / name)


@cache
def names_in(file: str) -> set[str]:
    """Names of a file's tensors; none where it is not a safetensors file."""
    if not file.endswith(".safetensors"):
        return set()
    with safe_open(FOLDER / file, "pt") as opened:
        return set(opened.keys())


def files(form: str) -> list[str]:
    """Names of the files of a form of `FILES`; none is a failure."""
    listed = index()["files"]
    found = [name for name, entry in listed.items() if FILES[form](names_in(name), entry)]
    assert found, f"{FOLDER} holds no file of the form {form!r}"
    return found


def cases(form: str) -> list[tuple[str, str]]:
    """(file, case) for the cases of a form of `CASES`; none is a failure."""
    found = [
        (file, case)
        for file, entry in index()["files"].items()
        for case, entry_of_case in entry.get("cases", {}).items()
        if CASES[form](_names_of_case(file, case), entry_of_case)
    ]
    assert found, f"{FOLDER} holds no case of the form {form!r}"
    return found


def _names_of_case(file: str, case: str) -> set[str]:
    start = case + "."
    return {name.removeprefix(start) for name in names_in(file) if name.startswith(start)}


def case(file: str, name: str) -> SimpleNamespace:
    """The tensors of one case of a file with several, and what the index says of it."""
    own = {
        key.removeprefix(name + "."): value
        for key, value in tensors(file).items()
        if key.startswith(name + ".")
    }
    return SimpleNamespace(**own, entry=index()["files"][file]["cases"][name])


def whole(file: str) -> SimpleNamespace:
    """The tensors of a file that is one case, and what the index says of it."""
    return SimpleNamespace(**tensors(file), entry=index()["files"][file])


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


def config(language: str = "vicuna") -> InstructBlipConfig:
    """The reference's configuration in the form of the published one, or with a T5 instead."""
    qformer, vit, llm = (index()["config"][part] for part in ("qformer", "vit", "llm"))
    return InstructBlipConfig(
        vision_config={
            "hidden_size": vit["hidden_size"],
            "intermediate_size": int(vit["hidden_size"] * vit["mlp_ratio"]),
            "num_hidden_layers": vit["num_hidden_layers"],
            "num_attention_heads": vit["num_attention_heads"],
            "image_size": vit["image_size"],
            "patch_size": vit["patch_size"],
            "layer_norm_eps": vit["layer_norm_eps"],
        },
        qformer_config={
            "vocab_size": qformer["vocab_size"],
            "hidden_size": qformer["hidden_size"],
            "num_hidden_layers": qformer["num_hidden_layers"],
            "num_attention_heads": qformer["num_attention_heads"],
            "intermediate_size": qformer["intermediate_size"],
            "max_position_embeddings": qformer["max_position_embeddings"],
            "cross_attention_frequency": qformer["cross_attention_freq"],
            "layer_norm_eps": qformer["layer_norm_eps"],
            "encoder_hidden_size": qformer["encoder_width"],
        },
        text_config=T5
        if language == "flan-t5"
        else {
            "model_type": "llama",
            "vocab_size": llm["vocab_size"],
            "hidden_size": llm["hidden_size"],
            "intermediate_size": llm["intermediate_size"],
            "num_hidden_layers": llm["num_hidden_layers"],
            "num_attention_heads": llm["num_attention_heads"],
            "max_position_embeddings": llm["max_position_embeddings"],
            "rms_norm_eps": llm["rms_norm_eps"],
            "bos_token_id": llm["bos_token_id"],
            "eos_token_id": llm["eos_token_id"],
            "pad_token_id": llm["pad_token_id_config"],
        },
        num_query_tokens=qformer["num_query_tokens"],
    )


# The reference has no encoder-decoder: its Q-Former is what it can be held against.
T5 = {
    "model_type": "t5",
    "vocab_size": 60,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 1,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}


def checkpoint(which: str) -> Path:
    """The file of the authors' parameters: `base`, `finetuned`, or by its name in the folder."""
    return FOLDER / (which if which in index()["files"] else files(which)[0])


@cache
def pickled(which: str) -> Path:
    """The pickle that holds the same parameters as `checkpoint`."""
    names = names_in(str(checkpoint(which).relative_to(FOLDER)))
    for path in sorted(FOLDER.rglob("*.pth")):
        if torch.load(path, weights_only=True)["model"].keys() == names:
            return path
    raise AssertionError(f"{FOLDER} holds no pickle of the {which} parameters")


@cache
def weights(which: str) -> dict[str, torch.Tensor]:
    """Parameters under our names: `base`, or a fine-tuned file's laid over it."""
    state = dict(rename(load_file(checkpoint("base"))))
    return state | rename(load_file(checkpoint(which)))


def _language_tokenizer() -> LlamaTokenizer:
    (path,) = FOLDER.rglob("*.model")  # sentencepiece's own ending
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, Path(folder, "tokenizer.model"))
        return LlamaTokenizer.from_pretrained(
            folder,
            pad_token="[PAD]",
            bos_token="</s>",  # as the authors set it
            local_files_only=True,
        )


def _instruction_tokenizer() -> BertTokenizer:
    """BERT's: the text file whose lines are words, [CLS] among them."""
    (path,) = (p for p in FOLDER.rglob("*.txt") if "[CLS]" in p.read_text("utf-8").split())
    return BertTokenizer(vocab=str(path))


def model(which: str, language: str = "vicuna") -> InstructBlip:
    """A fresh model with the reference's weights and tokenizers."""
    settings, state = config(language), weights(which)
    if language == "flan-t5":
        t5 = T5ForConditionalGeneration(settings.text_config).state_dict()
        state = {k: v for k, v in state.items() if not k.startswith("language_")}
        state |= {f"language_model.{name}": value for name, value in t5.items()}
        state["language_projection.weight"] = torch.zeros(32, settings.qformer_config.hidden_size)
        state["language_projection.bias"] = torch.zeros(32)
    words = _language_tokenizer()
    # the files' sentencepiece model has no bytes to fall back on, which every real one has
    words.backend_tokenizer.model.unk_token = "<unk>"
    return build(settings, state, _instruction_tokenizer(), words)


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that the reference trains, ready for a backward pass."""
    found = {
        name: parameter
        for name, parameter in module.named_parameters()
        if not name.startswith("language_model.")
        and (not name.startswith("vision_model.") or "post_layernorm" in name)
    }
    for parameter in found.values():
        parameter.requires_grad_(True)
    return found
