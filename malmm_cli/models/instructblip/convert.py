"""The authors' checkpoints (LAVIS parameter names) → folders that we load.

Renaming is pure and idempotent: names that are ours already pass through, so converting what was
converted changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from malmm_cli.checkpoints.eva import renamed
from malmm_cli.checkpoints.layout import copy_beside_weights, read_config
from malmm_cli.checkpoints.others import (
    ANOTHER,
    Converted,
    check_numbers,
    check_parts,
    gathered,
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

_LAYER = r"^Qformer\.bert\.encoder\.layer\.(\d+)\."
_RENAMED = [
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

# What a checkpoint holds as a whole or not at all; a name belongs to the first that it begins with.
_PARTS = {
    name: name
    for name in (
        *("vision_model.post_layernorm", "vision_model", "qformer", "query_tokens"),
        *("language_projection", "language_model"),
    )
}
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
    check_parts(laid, state.keys(), _PARTS, where, hint=_BASE)
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


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth or .safetensors file, by our names; raises ModelError."""
    return rename(read_tensors(path), where=str(path))


def rename(state: Mapping[str, Tensor], *, where: str = "state dict") -> dict[str, Tensor]:
    """A state dict of LAVIS names by our names, see `eva.renamed`; raises ModelError."""
    return renamed(state, _RENAMED, _DROPPED, where)
