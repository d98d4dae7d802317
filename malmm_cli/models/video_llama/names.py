"""The authors' parameter names → ours.

Renaming is pure and idempotent: names that are ours already pass through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from malmm_cli.checkpoints.eva import renamed

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

_INSIDE = r"^((?:video\.|audio\.)?qformer\.encoder\.layer\.\d+\.(?:cross)?attention)\.self\."
# one after the other
_RENAMED = [
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


def rename(state: Mapping[str, Tensor], *, where: str = "state dict") -> dict[str, Tensor]:
    """A state dict of the authors' names by our names, see `eva.renamed`; raises ModelError."""
    return renamed(state, _RENAMED, _DROPPED, where)
