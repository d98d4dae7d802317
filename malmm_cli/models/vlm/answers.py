"""Questions → texts and likelihoods, behind a prefix that is read once.

Questions go on from copies of the prefix's cache, side by side and padded on the left. A recurrent
language model would take padding in, so only questions of equal length stand side by side there.
Letters: B questions, L tokens of the prefix, l of a question, C width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from malmm_cli.models.base import OnText
from malmm_cli.models.config import quiet
from malmm_cli.models.generation import Words, search_options, seeded
from malmm_cli.models.vlm.adapter import Adapter, Tokens
from malmm_cli.models.vlm.prefix import ahead, widened
from malmm_cli.models.vlm.texts import Texts
from malmm_cli.settings import Decoding

__all__ = ["generate", "likelihoods", "logits", "loss"]


@torch.no_grad()
def generate(
    adapter: Adapter,
    net: Any,
    texts: Texts,
    prefix: Tokens,
    cache: Any,
    prompts: Sequence[str],
    decoding: Decoding,
    on_text: OnText | None = None,
) -> list[list[str]]:
    """Candidates for each prompt, the best first; as many as there are beams."""
    found: list[list[str]] = [[] for _ in prompts]
    asked = [adapter.question(prompt) for prompt in prompts]
    for group in _groups(adapter, texts, asked):
        ids, mask = texts.rows([asked[k] for k in group], side="left")
        told = _searched(net, texts, prefix, cache, ids, mask, decoding, on_text)
        for place, k in enumerate(group):
            found[k] = told[place * decoding.beams : (place + 1) * decoding.beams]
    return found


def _groups(adapter: Adapter, texts: Texts, asked: Sequence[str]) -> Iterator[list[int]]:
    """The numbers of the questions that can be asked side by side."""
    if not adapter.recurrent:
        yield list(range(len(asked)))
        return
    lengths = [len(texts.ids(question)) for question in asked]
    for size in sorted(set(lengths)):
        yield [k for k, length in enumerate(lengths) if length == size]


def _searched(
    net: Any,
    texts: Texts,
    prefix: Tokens,
    cache: Any,
    ids: Tensor,
    mask: Tensor,
    decoding: Decoding,
    on_text: OnText | None,
) -> list[str]:
    """Texts behind questions of ids and mask (B, l); as many of each as there are beams."""
    device, (number, length) = prefix.embeds.device, (len(ids), prefix.embeds.shape[1])
    ids, mask = ids.to(device), mask.to(device)
    # As embeddings the question is not under the repetition penalty. Those of the prefix are in
    # the cache already and not read again.
    nothing = prefix.embeds.new_zeros(1, 1, 1).expand(number, *prefix.embeds.shape[1:])
    embeds = torch.cat([nothing, net.get_input_embeddings()(ids)], dim=1)
    whole = torch.cat([mask.new_ones(number, length), mask], dim=1)
    positions = ahead(prefix, mask)
    with seeded(decoding.seed, device), quiet():
        found = net.generate(
            inputs_embeds=embeds,
            attention_mask=whole,
            position_ids=positions if len(positions) > 1 else positions[0],
            past_key_values=widened(cache, number * decoding.beams),
            pad_token_id=texts.padding,
            eos_token_id=texts.ends,
            **search_options(decoding, None if on_text is None else Words(texts, on_text)),
        )
        return texts.decode(found)


@torch.no_grad()
def likelihoods(
    adapter: Adapter,
    net: Any,
    texts: Texts,
    prefix: Tokens,
    cache: Any,
    prompts: Sequence[str],
    answers: Sequence[str],
) -> Tensor:
    """Log-likelihood (B,) float32 of each answer, and of its end, behind its prompt."""
    ids, told = _with_answers(adapter, texts, prompts, answers)
    ids, told = ids.to(prefix.embeds.device), told.to(prefix.embeds.device)
    hidden = adapter.read(net, _after(net, prefix, ids), widened(cache, len(ids)))
    logits: Tensor = net.get_output_embeddings()(hidden[:, :-1])
    scores = logits.float().log_softmax(-1)
    chosen = scores.gather(-1, ids[:, 1:, None])[..., 0]
    return chosen.where(told[:, 1:], 0.0).sum(1)


@torch.no_grad()
def logits(
    adapter: Adapter, net: Any, texts: Texts, prefix: Tokens, cache: Any, prompt: str
) -> Tensor:
    """Logits (l, V) float32 at each of the l tokens of a question behind the prefix."""
    asked = torch.tensor([texts.ids(adapter.question(prompt))], device=prefix.embeds.device)
    tokens = Tokens(net.get_input_embeddings()(asked), ahead(prefix, torch.ones_like(asked)))
    found: Tensor = net.get_output_embeddings()(adapter.read(net, tokens, widened(cache, 1)))
    return found[0].float()


def loss(
    adapter: Adapter,
    net: Any,
    texts: Texts,
    prefix: Tokens,
    prompts: Sequence[str],
    answers: Sequence[str],
) -> Tensor:
    """Mean cross-entropy () of the tokens of answers, and of their ends, with gradient.

    The prefix is read together with each question, since gradient goes through it.
    """
    ids, told = _with_answers(adapter, texts, prompts, answers)
    ids, told = ids.to(prefix.embeds.device), told.to(prefix.embeds.device)
    tokens = prefix.before(_after(net, prefix, ids))
    hidden = adapter.read(net, tokens, None)[:, -ids.shape[1] - 1 : -1]
    logits: Tensor = net.get_output_embeddings()(hidden[told])
    return F.cross_entropy(logits.float(), ids[told])


def _with_answers(
    adapter: Adapter, texts: Texts, prompts: Sequence[str], answers: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Ids (B, l) of questions with their answers, and which of them are told, (B, l) bool."""
    asked = [texts.ids(adapter.question(prompt)) for prompt in prompts]
    told = [[*texts.ids(answer), texts.end] for answer in answers]
    rows = [[*one, *other] for one, other in zip(asked, told, strict=True)]
    ids, _ = texts.padded(rows, side="right")
    place = torch.arange(ids.shape[1])
    begins, ends = (torch.tensor([len(row) for row in part])[:, None] for part in (asked, rows))
    return ids, (place >= begins) & (place < ends)


def _after(net: Any, prefix: Tokens, ids: Tensor) -> Tokens:
    """Words of ids (B, l), padded on the right, behind a prefix.

    What comes after a token is never read by it, so padding on the right needs no mask.
    """
    return Tokens(net.get_input_embeddings()(ids), ahead(prefix, torch.ones_like(ids)))
