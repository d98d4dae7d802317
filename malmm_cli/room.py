"""How much is done at a time: what free memory has room for.

Each size is that of what is held at once, worked out from the model's configuration; one kind of
work may take `SHARE` of the memory that is free. At least one is always done.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from malmm_cli import hub
from malmm_cli.models import InstructBlip
from malmm_cli.settings import Decoding, Settings

__all__ = [
    *("answers_at_once", "feature_shape", "frames_at_once", "free_memory", "is_kept"),
    "prompts_at_once",
]

SHARE = 0.5

# More frames at a time keep no processor busier, and the first text waits for them.
MOST_FRAMES = {"cpu": 16, "mps": 16, "cuda": 32}


def free_memory(device: torch.device) -> int:
    """Bytes of memory that are free for a model on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return hub.machine_memory()


def feature_shape(net: InstructBlip) -> tuple[int, int]:
    """Patch tokens of a frame, and their width."""
    vision = net.config.vision_config
    return (vision.image_size // vision.patch_size) ** 2 + 1, vision.hidden_size


def frames_at_once(net: InstructBlip) -> int:
    """Frames that are encoded at a time."""
    vision, (patches, _) = net.config.vision_config, feature_shape(net)
    # one layer's: its input and output, queries, keys and values, and the wide part of its MLP
    held = patches * (6 * vision.hidden_size + 2 * vision.intermediate_size)
    scores = vision.num_attention_heads * patches**2
    each = (held + scores) * net.vision_model.dtype.itemsize
    return min(_fitting(each, net.device), MOST_FRAMES[net.device.type])


def prompts_at_once(
    net: InstructBlip, prompts: Sequence[str], settings: Settings, *, frames: int, chunk: int
) -> int:
    """Prompts that are remembered at a time, each with query banks and tokens of its own.

    `frames` are to come, `chunk` at a time.
    """
    about: Any = net.config.qformer_config
    size, width = net.dtype.itemsize, about.hidden_size
    length = net.num_queries + net.texts.instructions(prompts)[0].shape[1]
    each = length * (6 * width + 2 * about.intermediate_size) * size
    memory = settings.memory
    if memory.policy == "average" or memory.length == 0:
        each *= min(frames, chunk)  # they are read side by side
    elif memory.keeps_queries:
        slots = memory.within(frames).length + 1
        entry = width * (torch.float32.itemsize + 2 * size)  # itself, its key and its value
        each += (about.num_hidden_layers - 1) * slots * length * entry
    if memory.length == 0:
        each += frames * net.num_queries * width * size
    return _fitting(each, net.device)


def answers_at_once(
    net: InstructBlip, visual: int, prompts: Sequence[str], decoding: Decoding
) -> int:
    """Prompts, with so many visual tokens each, that are answered at a time."""
    text = net.config.text_config
    given = net.texts.prompts(prompts, side="left")[0].shape[1]
    length = visual + given + decoding.max_new_tokens
    keys_and_values = 2 * text.num_hidden_layers * text.hidden_size * length
    # searching in beams copies them when it reorders beams; scores of words come in float32
    size = net.language_model.dtype.itemsize
    each = decoding.beams * (2 * keys_and_values * size + 4 * text.vocab_size * 4)
    return _fitting(each, net.language_model.device)


def is_kept(net: InstructBlip, frames: int) -> bool:
    """Whether there is room in the machine's own memory for the features of so many frames."""
    each = math.prod(feature_shape(net)) * net.vision_model.dtype.itemsize
    return frames <= _fitting(each, torch.device("cpu"))


def _fitting(each: int, device: torch.device) -> int:
    """How many of so many bytes each have room in their share of what is free."""
    return max(int(SHARE * free_memory(device)) // each, 1)
