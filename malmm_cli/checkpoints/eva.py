"""The authors' parameter names → ours: the vision tower is EVA's in every family of theirs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from malmm_cli.checkpoints.others import ANOTHER, NUMBERS
from malmm_cli.errors import ModelError

__all__ = ["renamed"]

_BLOCK = r"^visual_encoder\.blocks\.(\d+)\."
_TOWER = [
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (_BLOCK + r"norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (_BLOCK + r"attn\.qkv\.", r"vision_model.encoder.layers.\1.self_attn.qkv."),
    (_BLOCK + r"attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.projection."),
    (_BLOCK + r"mlp\.", r"vision_model.encoder.layers.\1.mlp."),
    (r"^ln_vision\.", "vision_model.post_layernorm."),
]
_BIASES = re.compile(_BLOCK + r"attn\.(q_bias|v_bias)$")


def renamed(
    state: Mapping[str, Tensor],
    names: Sequence[tuple[str, str]],
    dropped: re.Pattern[str],
    where: str,
) -> dict[str, Tensor]:
    """A state dict, whole or of trained parameters alone, by our names; ours pass through.

    `names` are patterns and replacements for all but the tower, applied one after the other;
    tensors whose name has `dropped` in it are left out. The tower's separate query and value biases
    become one of query, key (always zero) and value; ModelError where there is only one of the two,
    or they do not fit together.
    """
    found = {}
    for name, value in state.items():
        if dropped.search(name):
            continue
        part = _BIASES.match(name)
        if part is None:
            found[_renamed(name, names)] = value
        elif part[2] == "q_bias":
            other = _beside(state, name, "q_bias", "v_bias", where)
            bias = torch.cat([value, torch.zeros_like(value), other])
            found[f"vision_model.encoder.layers.{part[1]}.self_attn.qkv.bias"] = bias
        else:
            _beside(state, name, "v_bias", "q_bias", where)
    return found


def _beside(state: Mapping[str, Tensor], name: str, kind: str, other: str, where: str) -> Tensor:
    """The other bias of the two, which fits the one of this name; raises ModelError."""
    value, beside = state[name], state.get(name.removesuffix(kind) + other)
    if beside is None:
        raise ModelError(f"{where}: has {name} without {other}", hint=ANOTHER)
    if value.dim() != 1 or value.shape != beside.shape or value.dtype not in NUMBERS:
        raise ModelError(
            f"{where}: {name} must be a floating point vector as long as {other}, but "
            f"is {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}",
            hint=ANOTHER,
        )
    return beside


def _renamed(name: str, names: Sequence[tuple[str, str]]) -> str:
    for pattern, replacement in (*_TOWER, *names):
        name = re.sub(pattern, replacement, name)
    return name
