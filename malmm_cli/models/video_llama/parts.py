"""Names and shapes of all parameters, from a configuration alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import transformers
from torch import nn

from malmm_cli.models.video_llama.config import Configuration
from malmm_cli.models.video_llama.reader import Reader

__all__ = ["THEIRS", "shapes"]

# How the names of the parameters begin that are in transformers' own models.
THEIRS = ("vision_model.", "qformer.", "video.qformer.", "audio.qformer.", "language_model.")


def shapes(config: Configuration) -> Iterator[tuple[str, torch.Size]]:
    """Name and shape of every parameter."""
    qformer = transformers.Blip2QFormerModel
    width = config.text_config.hidden_size
    yield "query_tokens", torch.Size([1, config.query_tokens, config.qformer_config.hidden_size])
    with torch.device("meta"):
        parts: dict[str, nn.Module] = {
            "vision_model": transformers.Blip2VisionModel(config.vision_config),
            "qformer": qformer(config.qformer_config),
            "video": Reader(
                qformer(config.video_qformer_config),
                queries=config.video_query_tokens,
                positions=config.frame_positions,
                width=width,
            ),
        }
        if config.hears:
            parts["audio"] = Reader(
                qformer(config.audio_qformer_config),
                queries=config.audio_query_tokens,
                positions=config.clip_positions,
                width=width,
            )
        parts["language_model"] = transformers.LlamaForCausalLM(config.text_config)
    for prefix, part in parts.items():
        for name, parameter in part.state_dict().items():
            yield f"{prefix}.{name}", parameter.shape
