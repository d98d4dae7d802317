"""How much work to do at a time in the memory that is free.

Each size is that of what is held at once, as the model says; one kind of work may take `SHARE` of
the memory that is free. At least one is always done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from malmm_cli.models.base import VideoModel, Work
from malmm_cli.processes import machine
from malmm_cli.settings import Decoding, Settings

__all__ = [
    *("answers_at_once", "frames_at_once", "free_memory", "is_kept"),
    "prompts_at_once",
]

SHARE = 0.5

# More frames at a time keep no processor busier, and the first text waits for them.
MOST_FRAMES = {"cpu": 16, "mps": 16, "cuda": 32}


def free_memory(device: torch.device) -> int:
    """Bytes of memory that are free for a model on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return machine.free_memory()


def frames_at_once(model: VideoModel[Any]) -> int:
    """Frames that are encoded at a time."""
    fitting = _fitting(model.bytes_for(Work("frame")), model.device)
    return min(fitting, MOST_FRAMES[model.device.type])


def prompts_at_once(
    model: VideoModel[Any], prompts: Sequence[str], settings: Settings, *, features: int, chunk: int
) -> int:
    """Prompts that are remembered at a time, each with query banks and tokens of its own.

    So many `features` are to come, `chunk` at a time.
    """
    work = Work("prompt", prompts, settings.memory, features=features, chunk=chunk)
    return _fitting(model.bytes_for(work), model.device)


def answers_at_once(
    model: VideoModel[Any], context: int, prompts: Sequence[str], decoding: Decoding
) -> int:
    """Prompts, with so many tokens of context each, that are answered at a time."""
    work = Work("answer", prompts, decoding=decoding, context=context)
    return _fitting(model.bytes_for(work), model.answers_on)


def is_kept(model: VideoModel[Any], features: int) -> bool:
    """Whether that many features fit in the machine's own memory."""
    return features <= _fitting(model.bytes_for(Work("feature")), torch.device("cpu"))


def _fitting(each: int, device: torch.device) -> int:
    """The number of items of `each` bytes that fit."""
    return max(int(SHARE * free_memory(device)) // each, 1)
