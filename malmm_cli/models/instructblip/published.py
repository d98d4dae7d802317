"""Configurations of the published models, without their weights: for sizes and benchmarks."""

from __future__ import annotations

from typing import Any

import torch
import transformers

__all__ = ["parameters", "published_config"]


def published_config(name: str, text_layers: int | None = None) -> Any:
    """The configuration of a published model by its short name, as its files have it.

    `text_layers`: the language model has so many instead, and all before it stays as large.
    """
    vicuna: dict[str, Any] = {
        "model_type": "llama",
        "vocab_size": 32064,
        "max_position_embeddings": 2048,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    flan_t5: dict[str, Any] = {
        "model_type": "t5",
        "vocab_size": 32128,
        "d_kv": 64,
        "num_layers": 24,
        "num_decoder_layers": 24,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
    }
    text = {
        "vicuna-7b": {**vicuna, "hidden_size": 4096, "intermediate_size": 11008}
        | {"num_hidden_layers": 32, "num_attention_heads": 32},
        "vicuna-13b": {**vicuna, "hidden_size": 5120, "intermediate_size": 13824}
        | {"num_hidden_layers": 40, "num_attention_heads": 40},
        "flan-t5-xl": {**flan_t5, "d_model": 2048, "d_ff": 5120, "num_heads": 32},
        "flan-t5-xxl": {**flan_t5, "d_model": 4096, "d_ff": 10240, "num_heads": 64},
    }[name]
    if text_layers is not None:
        text |= {key: text_layers for key in text if key.endswith("_layers")}
    return transformers.InstructBlipConfig(
        vision_config={},  # transformers' own defaults are the published sizes
        qformer_config={"vocab_size": 30523},
        text_config=text,
        num_query_tokens=32,
    )


def parameters(config: Any) -> int:
    """How many parameters a model of config has, which is not built."""
    with torch.device("meta"):
        net = transformers.InstructBlipForConditionalGeneration(config)
    return sum(parameter.numel() for parameter in net.parameters())
