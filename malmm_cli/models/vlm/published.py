"""Configurations of the published models, without their weights: for sizes and benchmarks."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from malmm_cli.models.vlm.load import ADAPTERS

__all__ = ["parameters", "published_config"]

_QWEN_VISION = {
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "num_position_embeddings": 2304,
}
# encoders: the smaller and the larger of Qwen's, SigLIP's of SmolVLM2, that of InternVL3
_SMALL = {"hidden_size": 768, "depth": 12, "intermediate_size": 3072, "num_heads": 12}
_MIDDLE = {"hidden_size": 1024, "depth": 24, "intermediate_size": 4096, "num_heads": 16}
_LARGE = {"hidden_size": 1152, "depth": 27, "intermediate_size": 4304, "num_heads": 16}
_SIGLIP = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}
_SIGLIP |= {"num_attention_heads": 12, "image_size": 512, "patch_size": 16}
_SO400M = {"hidden_size": 1152, "num_hidden_layers": 27, "intermediate_size": 4304}
_SO400M |= {"num_attention_heads": 16, "image_size": 384, "patch_size": 14}
_INTERN = {"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096}
_INTERN |= {"num_attention_heads": 16, "attention_bias": True}

# Short name → width, layers, heads, of them for keys and values, wide part of a language model.
_TEXT = {
    "qwen3-vl-2b": (2048, 28, 16, 8, 6144),
    "qwen3-vl-4b": (2560, 36, 32, 8, 9728),
    "qwen3-vl-8b": (4096, 36, 32, 8, 12288),
    "qwen3.5-0.8b": (1024, 24, 8, 2, 3584),
    "qwen3.5-2b": (2048, 24, 8, 2, 6144),
    "qwen3.5-4b": (2560, 32, 16, 4, 9216),
    "smolvlm2-256m": (576, 30, 9, 3, 1536),
    "smolvlm2-500m": (960, 32, 15, 5, 2560),
    "smolvlm2-2.2b": (2048, 24, 32, 32, 8192),
    "internvl3-1b": (896, 24, 14, 2, 4864),
    "internvl3-2b": (1536, 28, 12, 2, 8960),
    "internvl3-8b": (3584, 28, 28, 4, 18944),
}


def published_config(name: str, text_layers: int | None = None) -> Any:
    """The configuration of a published model by its short name, in sizes as its files have it.

    `text_layers`: the language model has so many instead, and all before it stays as large.
    """
    series = name.rpartition("-")[0]
    make = {
        "qwen3-vl": _qwen3_vl,
        "qwen3.5": _qwen3_5,
        "smolvlm2": _smolvlm2,
        "internvl3": _internvl3,
    }[series]
    kind, content = make(name, _text(name, text_layers))
    tied = content["text_config"].get("tie_word_embeddings", False)
    config = getattr(transformers, ADAPTERS[kind].kind).config_class
    return config.from_dict({**content, "tie_word_embeddings": tied})


def parameters(config: Any) -> int:
    """How many parameters a model of config has, which is not built."""
    with torch.device("meta"):
        net = getattr(transformers, ADAPTERS[config.model_type].kind)(config)
    return sum(parameter.numel() for parameter in net.parameters())


def _text(name: str, layers: int | None) -> dict[str, Any]:
    width, own, heads, pairs, wide = _TEXT[name]
    return {
        "hidden_size": width,
        "num_hidden_layers": layers or own,
        "num_attention_heads": heads,
        "num_key_value_heads": pairs,
        "intermediate_size": wide,
    }


def _rope(theta: float, sections: list[int], **more: Any) -> dict[str, Any]:
    """Positions of three axes."""
    told = {"rope_type": "default", "rope_theta": theta, "mrope_interleaved": True}
    return {"rope_parameters": {**told, "mrope_section": sections, **more}}


def _qwen3_vl(name: str, text: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    large = name.endswith("8b")
    levels = [8, 16, 24] if large else [5, 11, 17]
    vision: dict[str, Any] = {**(_LARGE if large else _MIDDLE), **_QWEN_VISION}
    vision |= {"out_hidden_size": _TEXT[name][0], "deepstack_visual_indexes": levels}
    text |= {"head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 262144}
    text |= {"tie_word_embeddings": not large, **_rope(5e6, [24, 20, 20])}
    return "qwen3_vl", {"text_config": text, "vision_config": vision}


def _qwen3_5(name: str, text: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    vision = {**(_SMALL if name.endswith("0.8b") else _MIDDLE), **_QWEN_VISION}
    vision["out_hidden_size"] = _TEXT[name][0]
    text |= {"head_dim": 256, "vocab_size": 248320, "max_position_embeddings": 262144}
    text |= {"linear_num_key_heads": 16, "linear_key_head_dim": 128, "linear_value_head_dim": 128}
    text |= {"linear_num_value_heads": 32 if name.endswith("4b") else 16}
    text |= {"tie_word_embeddings": True, **_rope(1e7, [11, 11, 10], partial_rotary_factor=0.25)}
    return "qwen3_5", {"text_config": text, "vision_config": vision}


def _smolvlm2(name: str, text: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    large = name.endswith("2.2b")
    vision = _SO400M if large else _SIGLIP
    text |= {"model_type": "llama", "head_dim": 64, "vocab_size": 49280}
    text |= {"max_position_embeddings": 8192}
    content = {"text_config": text, "vision_config": vision, "scale_factor": 3 if large else 4}
    return "smolvlm", content


def _internvl3(name: str, text: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    text |= {"model_type": "qwen2", "vocab_size": 151674, "max_position_embeddings": 32768}
    vision = {**_INTERN, "image_size": [448, 448], "patch_size": [14, 14]}
    content = {"text_config": text, "vision_config": vision}
    return "internvl", {**content, "downsample_ratio": 0.5, "image_seq_length": 256}
