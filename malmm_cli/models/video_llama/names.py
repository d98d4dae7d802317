"""The authors' parameter names → ours.

Renaming is pure and idempotent: names that are ours already pass through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from malmm_cli.errors import ModelError

__all__ = ["rename"]

# Buffers that checkpoints store beside parameters, and the half of the first Q-Former that reads
# text, which the authors delete.
_DROPPED = re.compile(
    r"(^|\.)(position_ids|rotary_emb\.inv_freq)$"
    r"|^audio_encoder\.modality_(preprocessors\.text\.mask"
    r"|postprocessors\.(audio|depth|thermal|imu)\.1\.log_logit_scale)$"
    r"|^Qformer\.(cls\.|bert\.embeddings\.(word|position)_embeddings\.)"
    r"|^Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\."
)

_BLOCK = r"^visual_encoder\.blocks\.(\d+)\."
_INSIDE = r"^((?:video\.|audio\.)?qformer\.encoder\.layer\.\d+\.(?:cross)?attention)\.self\."
# one after the other
_RENAMED = [
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (_BLOCK + r"norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (_BLOCK + r"attn\.qkv\.", r"vision_model.encoder.layers.\1.self_attn.qkv."),
    (_BLOCK + r"attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.projection."),
    (_BLOCK + r"mlp\.", r"vision_model.encoder.layers.\1.mlp."),
    (r"^ln_vision\.", "vision_model.post_layernorm."),
    (r"^Qformer\.bert\.", "qformer."),
    (r"^(video|audio)_Qformer\.bert\.", r"\1.qformer."),
    (r"^((?:video\.|audio\.)?qformer)\.embeddings\.LayerNorm\.", r"\1.layernorm."),
    (_INSIDE, r"\1.attention."),
    (r"^(video|audio)_query_tokens$", r"\1.query_tokens"),
    (r"^video_frame_position_embedding\.", "video.position_embedding."),
    (r"^audio_position_embedding\.", "audio.position_embedding."),
    (r"^llama_proj\.", "video.projection."),
    (r"^audio_llama_proj\.", "audio.projection."),
    (r"^llama_model\.", "language_model."),
]
_BIASES = re.compile(_BLOCK + r"attn\.(q_bias|v_bias)$")


def rename(state: Mapping[str, Tensor], *, where: str = "state dict") -> dict[str, Tensor]:
    """A state dict of the authors' names, whole or of trained parameters alone, by our names.

    The encoder's separate query and value biases become one of query, key (always zero) and value;
    ModelError where there is only one of the two, or they do not fit together.
    """
    renamed = {}
    for name, value in state.items():
        if _DROPPED.search(name):
            continue
        part = _BIASES.match(name)
        if part is None:
            renamed[_renamed(name)] = value
            continue
        other = {"q_bias": "v_bias", "v_bias": "q_bias"}[part[2]]
        beside = state.get(name.removesuffix(part[2]) + other)
        if beside is None or beside.shape != value.shape or value.dim() != 1:
            raise ModelError(
                f"{where}: {name} has no {other} of the same length",
                hint="use another checkpoint, or save this one again",
            )
        if part[2] == "q_bias":
            bias = torch.cat([value, torch.zeros_like(value), beside])
            renamed[f"vision_model.encoder.layers.{part[1]}.self_attn.qkv.bias"] = bias
    return renamed


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name
