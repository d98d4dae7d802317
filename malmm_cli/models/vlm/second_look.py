"""Which slots a question looks at, and a context that shows some moments frame by frame.

Letters: B questions, S slots of P tokens, L tokens of the prefix, l of a question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from malmm_cli.memory.rule import Rule
from malmm_cli.memory.spans import Slots
from malmm_cli.models.config import quiet
from malmm_cli.models.vlm.adapter import Adapter, Tokens
from malmm_cli.models.vlm.prefix import ahead, widened
from malmm_cli.models.vlm.texts import Texts

__all__ = ["attended", "beside", "narrowed"]

# What every question looks at, whatever is asked: what is more than that is the question's own.
NEUTRAL = "Describe the video."


@torch.no_grad()
def attended(
    adapter: Adapter, net: Any, texts: Texts, prefix: Tokens, cache: Any, prompts: Sequence[str]
) -> Tensor:
    """How much more each question attends to each slot than a neutral one does, (B, S) float32.

    The share of its tokens' attention, in the mean over all layers that have attention weights and
    their heads, over the share that slot has of `NEUTRAL`.
    """
    each = [_shares(adapter, net, texts, prefix, cache, prompt) for prompt in (NEUTRAL, *prompts)]
    neutral, *asked = each
    return torch.stack(asked) / neutral.clamp(min=1e-9)


def _shares(
    adapter: Adapter, net: Any, texts: Texts, prefix: Tokens, cache: Any, prompt: str
) -> Tensor:
    """The shares (S,) of a question's attention that fall on the tokens of each slot."""
    assert prefix.visual is not None
    device = prefix.embeds.device
    ids = torch.tensor([texts.ids(adapter.question(prompt))], device=device)
    positions = ahead(prefix, torch.ones_like(ids))
    tokens = Tokens(net.get_input_embeddings()(ids), positions)
    with _weighing(net):
        weights = adapter.weights(net, tokens, widened(cache, 1))
    seen = torch.stack([layer[0].float().mean((0, 1)) for layer in weights]).mean(0)
    on_slots = seen[: len(prefix.visual)][prefix.visual]
    return on_slots.view(_slots(prefix.visual), -1).sum(1).cpu()


def _slots(visual: Tensor) -> int:
    """How many runs of visual tokens there are."""
    before = torch.cat([visual.new_zeros(1), visual[:-1]])
    return int((visual & ~before).sum())


@contextmanager
def _weighing(net: Any) -> Iterator[None]:
    """Let the model work out attention weights, which fused kernels do not give."""
    before = net.config._attn_implementation
    with quiet():
        net.set_attn_implementation("eager")
        try:
            yield
        finally:
            net.set_attn_implementation(before)


def narrowed(slots: Slots, number: int) -> Slots:
    """The same with so many slots at most: the most alike neighbours are merged, whole."""
    names = list(slots.riders)
    rows = torch.cat([slots.rows, *slots.riders.values()], dim=-1)[None]
    counts, seconds = slots.counts[None].float(), slots.seconds
    rule = Rule(merge="frame", compared=slots.rows.shape[-1])
    while rows.shape[1] > max(number, 1):
        before = counts
        rows, counts = rule.compress(rows, counts)
        left = int((counts[0, :, 0] != before[0, : counts.shape[1], 0]).int().argmax())
        joined = torch.stack([seconds[left, :, 0], seconds[left + 1, :, 1]], dim=-1)
        seconds = torch.cat([seconds[:left], joined[None], seconds[left + 2 :]])
    widths = [slots.rows.shape[-1], *(slots.riders[name].shape[-1] for name in names)]
    first, *riders = torch.split(rows[0], widths, dim=-1)
    return Slots(first, counts[0].long(), seconds, dict(zip(names, riders, strict=True)))


def beside(overview: Slots, frames: Slots) -> Slots:
    """Both, in order of the middle of what they show."""

    def both(one: Tensor, other: Tensor) -> Tensor:
        return torch.cat([one, other.to(one)])[order]

    seconds = torch.cat([overview.seconds, frames.seconds.to(overview.seconds)])
    order = seconds.mean((1, 2)).argsort(stable=True)
    riders = {name: both(rider, frames.riders[name]) for name, rider in overview.riders.items()}
    rows, counts = both(overview.rows, frames.rows), both(overview.counts, frames.counts)
    return Slots(rows, counts, seconds[order], riders)
