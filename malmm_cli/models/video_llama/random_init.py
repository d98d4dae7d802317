"""An untrained model in the layout of its folder, with random weights and a tokenizer of its own.

For tests, and for measuring sizes without the published weights.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from malmm_cli.checkpoints.state import write_state
from malmm_cli.models.video_llama.config import Configuration
from malmm_cli.models.video_llama.parts import shapes
from malmm_cli.models.vocabulary import llama_tokenizer

__all__ = ["preprocessor", "tiny_config", "write"]


def tiny_config(conversation: str = "llama-2", *, hears: bool = True) -> Configuration:
    """Some hundred thousand parameters; `conversation` is one of `prompts.FORMS`.

    `write` makes room for more words where its tokenizer has more.
    """
    width, heads = 32, 4
    qformer: dict[str, Any] = {"hidden_size": width, "num_attention_heads": heads}
    qformer |= {"intermediate_size": 64, "num_hidden_layers": 2}
    reader = {**qformer, "cross_attention_frequency": 1}
    content: dict[str, Any] = {
        "conversation": conversation,
        "vision_config": {
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": heads,
            "image_size": 32,
            "patch_size": 8,
        },
        "qformer_config": {**qformer, "encoder_hidden_size": 48},
        "video_qformer_config": {**reader, "encoder_hidden_size": width},
        "text_config": {
            "vocab_size": 8,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": 2048,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        "query_tokens": 4,
        "video_query_tokens": 5,
        "audio_query_tokens": 3,
    }
    if hears:
        content["audio_qformer_config"] = {**reader, "encoder_hidden_size": 40}
    return Configuration.from_dict(content)


def write(
    folder: Path,
    config: Configuration,
    words: Iterable[str],
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "5GB",
) -> None:
    """Write a random model of config into folder, which `load` then reads like any other.

    Its tokenizer knows the words given and spells all others. The same seed gives the same files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = llama_tokenizer(sorted(set(words)), legacy=True)
    text = config.text_config
    text.vocab_size = max(text.vocab_size, len(tokenizer))
    state = {name: _drawn(name, shape, seed).to(dtype) for name, shape in shapes(config)}
    end = text.eos_token_id
    state["language_model.lm_head.weight"][end] = 0.0  # an answer does not end by chance
    write_state(folder, state, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(folder)
    _write_json(folder / "config.json", config.to_dict())
    _write_json(folder / "preprocessor_config.json", preprocessor(config))


def preprocessor(config: Configuration) -> dict[str, Any]:
    """What frames are made of: squashed to a square, with the numbers that CLIP was trained on."""
    side = config.vision_config.image_size
    return {
        "image_processor_type": "BlipImageProcessor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "rescale_factor": 1 / 255,
        "resample": 3,
        "size": {"height": side, "width": side},
    }


def _drawn(name: str, shape: torch.Size, seed: int) -> Tensor:
    """Values large enough for what is seen to reach what is said; a name's are always the same."""
    generator = torch.Generator().manual_seed(seed + zlib.crc32(name.encode()))
    drawn = torch.randn(shape, generator=generator)
    if len(shape) == 1:  # gains are about 1, everything else about 0
        return drawn * 0.1 + name.endswith("weight")
    embeds = any(part in name for part in ("embed_tokens", "query_tokens", "position_embedding"))
    # each query looks somewhere else, so that positions of a frame do not change alike
    times = 4.0 if "crossattention.attention.query" in name else 1.5
    return drawn * (0.5 if embeds else times * shape[1:].numel() ** -0.5)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
