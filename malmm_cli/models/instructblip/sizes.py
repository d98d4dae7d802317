"""How many bytes InstructBLIP holds at once, from its configuration."""

from __future__ import annotations

import math
from typing import Any, assert_never

import torch

from malmm_cli.models.base import Work

__all__ = ["bytes_for", "feature_shape"]


def feature_shape(config: Any) -> tuple[int, int]:
    """Patch tokens of a frame, and their width."""
    vision = config.vision_config
    return (vision.image_size // vision.patch_size) ** 2 + 1, vision.hidden_size


def bytes_for(net: Any, work: Work) -> int:
    """Bytes for one frame encoded, one feature kept, one prompt remembered or one answer."""
    match work.kind:
        case "frame":
            return _frame(net)
        case "feature":
            return math.prod(feature_shape(net.config)) * int(net.vision_model.dtype.itemsize)
        case "prompt":
            return _prompt(net, work)
        case "answer":
            return _answer(net, work)
        case _:
            assert_never(work.kind)


def _frame(net: Any) -> int:
    vision, (patches, _) = net.config.vision_config, feature_shape(net.config)
    # one layer's: its input and output, queries, keys and values, and the wide part of its MLP
    held = patches * (6 * vision.hidden_size + 2 * vision.intermediate_size)
    scores = vision.num_attention_heads * patches**2
    return int((held + scores) * net.vision_model.dtype.itemsize)


def _prompt(net: Any, work: Work) -> int:
    config, memory = net.config.qformer_config, work.memory
    size, width = net.dtype.itemsize, config.hidden_size
    length = net.num_queries + net.texts.instructions(work.prompts)[0].shape[1]
    held = length * (6 * width + 2 * config.intermediate_size) * size
    if memory.policy == "average" or memory.length == 0:
        held *= min(work.features, work.chunk)  # they are read side by side
    elif memory.keeps_queries:
        slots = memory.within(work.features).length + 1
        entry = width * (torch.float32.itemsize + 2 * size)  # itself, its key and its value
        held += (config.num_hidden_layers - 1) * slots * length * entry
    if memory.length == 0:
        held += work.features * net.num_queries * width * size
    return int(held)


def _answer(net: Any, work: Work) -> int:
    text, decoding = net.config.text_config, work.decoding
    given = net.texts.prompts(work.prompts, side="left")[0].shape[1]
    length = work.context + given + decoding.max_new_tokens
    keys_and_values = 2 * text.num_hidden_layers * text.hidden_size * length
    # searching in beams copies them when it reorders beams; scores of words come in float32
    size = net.language_model.dtype.itemsize
    return int(decoding.beams * (2 * keys_and_values * size + 4 * text.vocab_size * 4))
