"""The authors' checkpoints (LAVIS parameter names) → folders that we load.

Renaming is pure and idempotent: names that are ours already pass through, so converting what was
converted changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from malmm_cli.checkpoints.layout import copy_beside_weights, read_config
from malmm_cli.checkpoints.others import (
    ANOTHER,
    NUMBERS,
    Converted,
    check_numbers,
    gathered,
    listed,
    read_tensors,
)
from malmm_cli.checkpoints.state import check, read_state, write_state, wrong_shapes
from malmm_cli.errors import ModelError
from malmm_cli.models.instructblip.load import check_state

__all__ = ["convert", "lay_over", "read_checkpoint", "rename"]

# Buffers that older versions stored, which follow from the configuration, and second names of T5's
# `shared`.
_DROPPED = re.compile(
    r"(^|\.)(position_ids|rotary_emb\.inv_freq)$"
    r"|^(t5_model|language_model)\.(encoder|decoder)\.embed_tokens\.weight$"
)

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


# What a checkpoint holds as a whole or not at all; a name belongs to the first that it begins with.
_PARTS = (
    *("vision_model.post_layernorm", "vision_model", "qformer", "query_tokens"),
    *("language_projection", "language_model"),
)
_TABLE = "position_embedding.weight"

_BASE = "check that --base is the model the checkpoint was trained from"


def convert(checkpoint: Path, base: Path, folder: Path) -> Converted:
    """Lay a checkpoint over the model in `base`, and write the whole into the new `folder`.

    Configuration and tokenizers are those of base. A checkpoint may hold everything, or trained
    parameters alone, but each part of the model whole or not at all. Raises ModelError, naming
    them, for tensors that are missing, that base does not know or that do not fit its
    configuration; MA-LMM's position table is its own and always taken.
    """
    return lay_over(read_checkpoint(checkpoint), base, folder, where=f"{checkpoint} over {base}")


def lay_over(laid: Mapping[str, Tensor], base: Path, folder: Path, *, where: str) -> Converted:
    """`convert` for tensors that were read and renamed already."""
    read_config(base)  # that base is of another kind says more than that no tensor fits
    if not laid:
        raise ModelError(f"{where}: the checkpoint contains no tensors", hint=ANOTHER)
    state = rename(read_state(base), where=str(base))
    unknown = laid.keys() - state.keys() - {_TABLE}
    shapes = {name: value.shape for name, value in state.items() if name != _TABLE}
    check((), unknown, wrong_shapes(laid, shapes), where, hint=_BASE, most=len(unknown))
    _check_parts(laid, state, where)
    whole = {**state, **laid}
    check_state(whole, base, where=where, hint=_BASE)
    check_numbers(whole, where)
    copy_beside_weights(base, folder)
    write_state(folder, whole)
    return Converted(
        taken=len(laid),
        kept=gathered(state.keys() - laid.keys(), state.keys()),
        positions=len(whole[_TABLE]) if _TABLE in whole else 0,
    )


def _check_parts(laid: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    """Raise ModelError for a part of the model of which laid has something, but not all."""

    def part_of(name: str) -> str:
        return next((part for part in _PARTS if name.startswith(part)), name)

    for part in dict.fromkeys(map(part_of, laid)):
        expected = {name for name in state if part_of(name) == part}
        if missing := expected - laid.keys():
            names = ", ".join(listed(gathered(missing, state.keys())))
            raise ModelError(
                f"{where}: the checkpoint has {len(expected - missing)} of the {len(expected)} "
                f"tensors of {part}; missing {names}",
                hint="a part must be complete or absent; check that --base is the model the "
                "checkpoint was trained from",
            )


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth or .safetensors file, by our names; raises ModelError."""
    return rename(read_tensors(path), where=str(path))


def rename(state: Mapping[str, Tensor], *, where: str = "state dict") -> dict[str, Tensor]:
    """State dict of LAVIS names, whole or of trained parameters alone, to one of our names.

    The encoder's separate query and value biases become one of query, key (always zero) and value;
    ModelError where there is only one of the two.
    """
    renamed = {}
    for name, value in state.items():
        if _DROPPED.search(name):
            continue
        part = _QKV_PARTS.match(name)
        if part is None:
            renamed[_rename_one(name)] = value
            continue
        kind, other = part[2], {"q_bias": "v_bias", "v_bias": "q_bias"}[part[2]]
        beside = state.get(name.removesuffix(kind) + other)
        if beside is None:
            raise ModelError(f"{where}: has {name} without {other}", hint=ANOTHER)
        if value.dim() != 1 or value.shape != beside.shape or value.dtype not in NUMBERS:
            raise ModelError(
                f"{where}: {name} must be a floating point vector as long as {other}, but "
                f"is {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}",
                hint=ANOTHER,
            )
        if kind == "q_bias":
            bias = torch.cat([value, torch.zeros_like(value), beside])
            renamed[f"vision_model.encoder.layers.{part[1]}.self_attn.qkv.bias"] = bias
    return renamed


def _rename_one(name: str) -> str:
    for pattern, replacement in _RENAMED:
        new, found = re.subn(pattern, replacement, name)
        if found:
            return new
    return name
