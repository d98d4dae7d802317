"""The authors' checkpoints (LAVIS parameter names) → folders that we load.

Renaming is pure and idempotent: names that are ours already pass through, so converting what was
converted changes nothing.
"""

from __future__ import annotations

import pickle
import re
import shutil
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from malmm_cli.errors import ModelError
from malmm_cli.models.weights import check, first_line, read_state, write_state, wrong_shapes

__all__ = ["Converted", "convert", "rename"]

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


@dataclass(frozen=True)
class Converted:
    """How many tensors of the new folder come from the checkpoint, and how many from the base."""

    taken: int
    kept: int


def convert(checkpoint: Path, base: Path, folder: Path) -> Converted:
    """Lay a checkpoint over the model in `base`, and write the whole into the new `folder`.

    Configuration and tokenizers are those of base. A checkpoint may hold everything, or trained
    parameters alone. Raises ModelError, naming them, for tensors that base does not know or that
    have another shape; MA-LMM's position table is its own and always taken.
    """
    laid = rename(read_checkpoint(checkpoint))
    state = rename(read_state(base))
    unknown = laid.keys() - state.keys() - {"position_embedding.weight"}
    check((), unknown, wrong_shapes(laid, state), f"{checkpoint} over {base}")
    kept = state.keys() - laid.keys()
    for path in base.iterdir():
        if path.is_dir():
            shutil.copytree(path, folder / path.name)
        elif not path.name.startswith("model"):
            shutil.copy(path, folder / path.name)
    write_state(folder, state | laid)
    return Converted(taken=len(laid), kept=len(kept))


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth (unpickled with weights only: no code can run) or .safetensors file."""
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            mapped = zipfile.is_zipfile(path)  # what older versions of torch wrote is not
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about odd pickles, which fail just below
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: holds more than tensors, and could run code",
            hint="only files that torch.load reads with weights_only=True are taken",
        ) from error
    except Exception as error:  # torch raises all kinds on files that are something else
        raise ModelError(f"{path}: cannot be read: {first_line(error)}") from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"{path}: holds no state dict, neither bare nor under 'model'")
    return state


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
