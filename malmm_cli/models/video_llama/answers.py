"""Prompts with media among their words → texts and likelihoods, by the frozen language model.

Letters: B prompts, L tokens of the longest, E language model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from malmm_cli.models.base import OnText
from malmm_cli.models.config import quiet
from malmm_cli.models.generation import Words, search_options, seeded
from malmm_cli.models.video_llama.texts import Texts
from malmm_cli.settings import Decoding

__all__ = ["generate", "likelihoods", "spliced"]


def spliced(net: Any, pieces: Sequence[Sequence[int]], media: Sequence[Tensor]) -> Tensor:
    """Input (L, E) of a prompt: the embeddings of ids, and media (n, E) between each two pieces."""
    table = net.get_input_embeddings()
    parts: list[Tensor] = []
    for ids, tokens in zip(pieces, [*media, None], strict=True):
        parts.append(table(torch.tensor(ids, dtype=torch.long, device=table.weight.device)))
        if tokens is not None:
            parts.append(tokens.to(parts[-1]))
    return torch.cat(parts)


@torch.no_grad()
def generate(
    net: Any,
    texts: Texts,
    inputs: Sequence[Tensor],
    decoding: Decoding,
    on_text: OnText | None = None,
) -> list[list[str]]:
    """Candidates for each input (L, E), the best first; as many as there are beams."""
    embeds, mask = _padded(inputs, side="left")
    words = None if on_text is None else Words(texts, on_text)
    # Embeddings are not under the repetition penalty; transformers warns that ids are missing.
    with seeded(decoding.seed, embeds.device), quiet():
        ids = net.generate(
            inputs_embeds=embeds,
            attention_mask=mask,
            pad_token_id=texts.padding,
            eos_token_id=texts.ends,
            stopping_criteria=StoppingCriteriaList([_Stops(texts.stops)]),
            **search_options(decoding, words),
        )
    found = texts.decode(ids)
    return [found[k : k + decoding.beams] for k in range(0, len(found), decoding.beams)]


@torch.no_grad()
def likelihoods(net: Any, texts: Texts, inputs: Sequence[Tensor], answers: Sequence[str]) -> Tensor:
    """Log-likelihood (B,) float32 of each answer, and of its end, after its input (L, E)."""
    told = [[*texts.ids(answer), texts.end] for answer in answers]
    rows = [
        torch.cat([given, spliced(net, [ids], [])]) for given, ids in zip(inputs, told, strict=True)
    ]
    embeds, mask = _padded(rows, side="right")
    logits = net(inputs_embeds=embeds, attention_mask=mask).logits
    scores = []
    for row, given, ids in zip(logits, inputs, told, strict=True):
        behind = row[len(given) - 1 : len(given) - 1 + len(ids)].float().log_softmax(-1)
        chosen = torch.tensor(ids, device=behind.device)
        scores.append(behind.gather(-1, chosen[:, None]).sum())
    return torch.stack(scores).cpu()


class _Stops(StoppingCriteria):
    """Ends a text that ends in one of some sequences of ids."""

    def __init__(self, stops: Sequence[Sequence[int]]) -> None:
        self._stops = stops

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Which of the texts of ids (B, L) end here, (B,) bool."""
        found = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        for stop in self._stops:
            if input_ids.shape[1] >= len(stop):
                tail = input_ids[:, -len(stop) :]
                found |= (tail == torch.tensor(stop, device=tail.device)).all(dim=1)
        return found


def _padded(rows: Sequence[Tensor], side: str) -> tuple[Tensor, Tensor]:
    """Rows (L, E) as one tensor (B, L, E), zeros where they are shorter, and the mask (B, L)."""
    embeds = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_side=side)
    ones = [torch.ones(len(row), dtype=torch.long, device=row.device) for row in rows]
    mask = torch.nn.utils.rnn.pad_sequence(ones, batch_first=True, padding_side=side)
    return embeds, mask
