"""What the language model reads before a question, once for all questions about a video.

Letters: S slots of P tokens, C width, L tokens of the prefix, A axes of positions, B questions.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from malmm_cli.memory.spans import Slots
from malmm_cli.models.config import quiet
from malmm_cli.models.vlm.adapter import Adapter, Tokens
from malmm_cli.models.vlm.texts import Texts

__all__ = ["CHUNK", "ahead", "laid_out", "length", "prefilled", "widened"]

# Tokens read at a time: bounds what a layer holds at once.
CHUNK = 1024


def laid_out(adapter: Adapter, texts: Texts, embedding: Any, slots: Slots) -> Tokens:
    """The prefix of slots: texts in the model's own form around the tokens of each, (1, L, C).

    Positions are counted anew, whatever the slots stood for before they were merged.
    """
    spans = [(float(start), float(end)) for start, end in slots.seconds.mean(1).tolist()]
    around = [texts.ids(text) for text in adapter.prefix(spans)]
    words = embedding(torch.tensor([*chain(*around)], device=embedding.weight.device))
    parts, positions, visual, begin, at = [], [], [], 0, 0
    for index, ids in enumerate(around):
        parts.append(words[begin : begin + len(ids)])
        positions.append((at + torch.arange(len(ids))).expand(adapter.axes, -1))
        visual += [False] * len(ids)
        begin, at = begin + len(ids), at + len(ids)
        if index < len(slots.rows):
            rows = slots.rows[index].to(words)
            where, size = adapter.slot_positions(_places(slots, index))
            parts.append(rows)
            positions.append(at + where)
            visual += [True] * len(rows)
            at += size
    embeds, places = torch.cat(parts)[None], torch.cat(positions, 1)[:, None]
    levels = None
    if adapter.levels:
        beside = slots.riders["levels"].flatten(0, 1).view(-1, adapter.levels, adapter.width)
        levels = beside.transpose(0, 1).to(words)
    device = words.device
    return Tokens(embeds, places.to(device), torch.tensor(visual, device=device), levels)


def length(adapter: Adapter, texts: Texts, slots: int, patches: int) -> int:
    """How many tokens a prefix has, about: times of many digits have one more."""
    text = adapter.prefix([(3599.0, 3599.0)] * slots)
    return sum(len(texts.ids(part)) for part in text) + slots * patches


def prefilled(adapter: Adapter, net: Any, tokens: Tokens, size: int = CHUNK) -> Any:
    """The language model's cache of a prefix, read so many tokens at a time."""
    cache = DynamicCache(config=net.config.get_text_config())
    with quiet():  # it tells of kernels that are not installed
        for begin in range(0, tokens.embeds.shape[1], size):
            adapter.read(net, tokens.some(slice(begin, begin + size)), cache)
    return cache


def widened(cache: Any, times: int) -> Any:
    """A copy of the cache of one text, for so many that go on from it."""
    wide = copy.deepcopy(cache)
    if times > 1:
        wide.reorder_cache(torch.zeros(times, dtype=torch.long))
    return wide


def ahead(tokens: Tokens, mask: Tensor) -> Tensor:
    """Positions (A, B, l) of texts behind a prefix, `mask` (B, l) of them padded on the left."""
    after = tokens.positions.amax() + 1
    steps = (mask.cumsum(-1) - 1).clamp(min=0).to(after.device)
    return (after + steps).expand(len(tokens.positions), -1, -1)


def _places(slots: Slots, index: int) -> Tensor:
    """Row and column (P, 2) of each token of a slot in the picture, where they are known."""
    if "place" in slots.riders:
        return slots.riders["place"][index].round().long()
    return torch.zeros(slots.rows.shape[1], 2, dtype=torch.long)
