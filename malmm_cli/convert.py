"""The authors' checkpoints (LAVIS parameter names) under the names that we load.

Pure and idempotent: names that are ours already pass through, so converting twice changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["rename"]

# Buffers that older versions stored; they follow from the configuration.
_DROPPED = re.compile(r"(^|\.)(position_ids|rotary_emb\.inv_freq)$")

_BLOCK = r"^visual_encoder\.blocks\.(\d+)\."
_LAYER = r"^Qformer\.bert\.encoder\.layer\.(\d+)\."
_RENAMED = [
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (_BLOCK + r"norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (_BLOCK + r"attn\.qkv\.", r"vision_model.encoder.layers.\1.self_attn.qkv."),
    (_BLOCK + r"attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.projection."),
    (_BLOCK + r"mlp\.", r"vision_model.encoder.layers.\1.mlp."),
    (r"^ln_vision\.", "vision_model.post_layernorm."),
    (r"^Qformer\.bert\.embeddings\.LayerNorm\.", "qformer.embeddings.layernorm."),
    (r"^Qformer\.bert\.embeddings\.", "qformer.embeddings."),
    (
        _LAYER + r"(attention|crossattention)\.self\.",
        r"qformer.encoder.layer.\1.\2.attention.",
    ),
    (_LAYER, r"qformer.encoder.layer.\1."),
    (r"^(llm|t5)_proj\.", "language_projection."),
    (r"^(llm|t5)_model\.", "language_model."),
    (r"^image_pe\.", "position_embedding."),
]
_QKV_PARTS = re.compile(_BLOCK + r"attn\.(q_bias|v_bias)$")


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of LAVIS names, whole or of trained parameters alone, to one of our names.

    The encoder's separate query and value biases become one of query, key (always zero) and value.
    """
    renamed = {}
    for name, value in state.items():
        if _DROPPED.search(name):
            continue
        part = _QKV_PARTS.match(name)
        if part is None:
            renamed[_rename_one(name)] = value
        elif part[2] == "q_bias":
            v_bias = state[name.removesuffix("q_bias") + "v_bias"]
            bias = torch.cat([value, torch.zeros_like(value), v_bias])
            renamed[f"vision_model.encoder.layers.{part[1]}.self_attn.qkv.bias"] = bias
    return renamed


def _rename_one(name: str) -> str:
    for pattern, replacement in _RENAMED:
        new, found = re.subn(pattern, replacement, name)
        if found:
            return new
    return name
