"""transformers' own way from frames to an answer, which benchmarks compare with.

It has no memory: its language model reads the tokens of every frame, and for every question anew.
Letters: T frames, k of them a feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from malmm_cli.models.config import quiet
from malmm_cli.models.generation import search_options
from malmm_cli.models.vlm.check import made, placed
from malmm_cli.models.vlm.model import VisionLanguage
from malmm_cli.settings import Decoding

__all__ = ["heard", "published_answers", "published_model"]


def heard(net: VisionLanguage) -> tuple[Any, Any]:
    """The part of the language model that reads tokens first, and its head."""
    return net.adapter.language(net.net), net.net.get_output_embeddings()


def published_model(net: VisionLanguage) -> Any:
    """Transformers' model with this one's parameters: the one that it is made of."""
    return net.net


@torch.no_grad()
def published_answers(
    net: VisionLanguage,
    theirs: Any,
    folder: Path,
    frames: Tensor,
    seconds: Tensor,
    prompts: Sequence[str],
    decoding: Decoding,
) -> list[str]:
    """What it says of frames (T, H, W, 3) uint8, shown at seconds (T,), to each prompt on its own.

    Prompts are in the folder's chat template. Pixels are malmm's, so that both see the same.
    """
    adapter, texts, per = net.adapter, net.texts, net.adapter.frames_per_feature
    whole = torch.arange(net.spec.features(len(frames)) * per).clamp(max=len(frames) - 1)
    pixels = torch.empty(len(whole), 3, *frames.shape[1:3])  # one copy, though they are many
    for place, frame in enumerate(whole.tolist()):
        pixels[place] = adapter.normalised(frames[frame][None])[0]
    ends = seconds[whole].view(-1, per)[:, [0, -1]].tolist()
    patches = adapter.patches or len(adapter.places(*frames.shape[1:3]))
    slots = patches, adapter.prefix([(start, end) for start, end in ends])
    found = []
    for prompt in prompts:
        given = placed(
            made(adapter, texts, folder, slots, pixels, prompt), net.device, net.dtype, theirs
        )
        with quiet():
            told = theirs.generate(
                **given,
                **search_options(decoding),
                eos_token_id=texts.ends,
                pad_token_id=texts.padding,
            )
        found += texts.decode(told[:, given["input_ids"].shape[1] :])
    return found
