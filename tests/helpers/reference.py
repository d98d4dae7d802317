"""The reference cases: numbers that the authors' own code gave on tiny random weights."""

import json
import os
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import torch
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

# The reference in float32 is itself 2e-5 away from the reference in float64.
TOLERANCE = 5e-5


@cache
def index() -> dict:
    return json.loads((FOLDER / "index.json").read_text())


@cache
def tensors(name: str) -> dict[str, torch.Tensor]:
    return load_file(FOLDER / name)


def files(prefix: str) -> list[str]:
    """Names of the files with cases whose own name begins with prefix; none is a failure."""
    found = [
        name
        for name in index()["files"]
        if Path(name).name.startswith(prefix) and name.endswith(".safetensors")
    ]
    assert found, f"{FOLDER} holds no case of {prefix}"
    return found


def cases(prefix: str) -> list[tuple[str, str]]:
    """(file, case) for the files that hold several cases."""
    return [(name, case) for name in files(prefix) for case in index()["files"][name]["cases"]]


def case(file: str, name: str) -> SimpleNamespace:
    """The tensors of one case of a file with several, and what the index says of it."""
    own = {
        key.removeprefix(name + "."): value
        for key, value in tensors(file).items()
        if key.startswith(name + ".")
    }
    return SimpleNamespace(**own, about=index()["files"][file]["cases"][name])


def whole(file: str) -> SimpleNamespace:
    """The tensors of a file that is one case, and what the index says of it."""
    return SimpleNamespace(**tensors(file), about=index()["files"][file])


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


@cache
def weights(which: str) -> dict[str, torch.Tensor]:
    """Parameters under our names: `base`, or `finetuned` laid over it."""
    state = dict(rename(tensors("full/checkpoint_base.safetensors")))
    if which == "finetuned":
        state |= rename(tensors("full/checkpoint_finetuned.safetensors"))
    return state


def model(which: str, language: str = "vicuna") -> InstructBlip:
    """A fresh model with the reference's weights and tokenizers."""
    folder, about, state = FOLDER / "full", config(language), weights(which)
    if language == "flan-t5":
        t5 = T5ForConditionalGeneration(about.text_config).state_dict()
        state = {k: v for k, v in state.items() if not k.startswith("language_")}
        state |= {f"language_model.{name}": value for name, value in t5.items()}
        state["language_projection.weight"] = torch.zeros(32, about.qformer_config.hidden_size)
        state["language_projection.bias"] = torch.zeros(32)
    words = LlamaTokenizer.from_pretrained(
        folder / "llm_tokenizer",
        pad_token="[PAD]",
        bos_token="</s>",  # as the authors set it
        local_files_only=True,
    )
    # the files' sentencepiece model has no bytes to fall back on, which every real one has
    words.backend_tokenizer.model.unk_token = "<unk>"
    instruction = BertTokenizer(vocab=str(folder / "qformer_tokenizer" / "vocab.txt"))
    return build(about, state, instruction, words)


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
