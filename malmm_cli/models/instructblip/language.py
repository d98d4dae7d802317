"""InstructBLIP's language model: its input, its text, the likelihood of an answer.

Letters: B prompts, n query tokens, D Q-Former width, E language model width, L prompt tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from malmm_cli.models.base import Context, OnText
from malmm_cli.models.generation import check_context, generate, likelihoods
from malmm_cli.models.instructblip.tokenizers import Texts
from malmm_cli.settings import Decoding, MemoryOptions

__all__ = ["LanguagePart"]


class LanguagePart(nn.Module):
    """Query tokens, projection and frozen language model; `InstructBlip` adds what sees."""

    def __init__(self, config: Any, language_model: Any, texts: Texts) -> None:
        super().__init__()
        self.config = config
        self.texts = texts
        self.language_model = language_model
        width = config.qformer_config.hidden_size
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, width))
        self.language_projection = nn.Linear(width, config.text_config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Where the Q-Former is."""
        return self.query_tokens.device

    @property
    def dtype(self) -> torch.dtype:
        """The type that the Q-Former computes in."""
        return self.query_tokens.dtype

    @property
    def answers_on(self) -> torch.device:
        """Where the language model is."""
        return torch.device(self.language_model.device)

    @property
    def num_queries(self) -> int:
        """Query tokens that one step gives the language model."""
        return self.query_tokens.shape[1]

    @property
    def limit(self) -> int | None:
        """Tokens that the language model reads; None for encoder-decoders, which have no limit."""
        limit: int | None = getattr(self.language_model.config, "max_position_embeddings", None)
        return limit if self.texts.decoder_only else None

    def check(
        self, prompts: Sequence[str], options: MemoryOptions, decoding: Decoding, features: int
    ) -> None:
        """Raise CapacityError if the language model cannot read what it would be given."""
        if prompts:
            visual = self.visual_tokens(options, features)
            check_context(self, visual, prompts, decoding.max_new_tokens)

    def visual_tokens(self, options: MemoryOptions, features: int) -> int:
        """How many tokens it is given for a video with that many features."""
        return self.num_queries * (features if options.gives_every_frame else 1)

    def text_tokens(self, prompt: str, answers: Sequence[str] = ()) -> int:
        """How many tokens it reads of a prompt and the longest of its answers."""
        if answers:
            ids, *_ = self.texts.prompts_with_answers([prompt] * len(answers), answers)
        else:
            ids, _ = self.texts.prompts([prompt], side="left")
        return ids.shape[1]

    def answer_tokens(self, answer: str) -> int:
        """How many tokens an answer has."""
        return self.texts.prompts([answer], side="right")[0].shape[1]

    def generate(
        self,
        context: Context,
        prompts: Sequence[str],
        decoding: Decoding,
        on_text: OnText | None = None,
    ) -> list[list[str]]:
        """Candidates for each prompt, the best first; raises what `generation.generate` raises."""
        return generate(self, context.tokens, prompts, decoding, on_text)

    def score(self, context: Context, prompts: Sequence[str], answers: Sequence[str]) -> Tensor:
        """Log-likelihood (B,) float32 of each answer to its prompt."""
        return likelihoods(self, context.tokens, prompts, answers)

    def embed(self, tokens: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens (B, n, D) before prompts as the language model's input (B, n + L, E), and mask.

        A decoder's prompts are padded on the left, between tokens and text, as in the reference.
        """
        side = "left" if self.texts.decoder_only else "right"
        ids, mask = self.texts.prompts(prompts, side=side)
        return self._join(tokens, ids, mask)

    def loss(self, context: Context, prompts: Sequence[str], answers: Sequence[str]) -> Tensor:
        """Cross-entropy () of answers after context and prompts; on the answers alone."""
        embeds, attention, labels = self.embed_with_answers(context.tokens, prompts, answers)
        out = self.language_model(inputs_embeds=embeds, attention_mask=attention, labels=labels)
        loss: Tensor = out.loss
        return loss

    def embed_with_answers(
        self, tokens: Tensor, prompts: Sequence[str], answers: Sequence[str]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What `embed` gives, made for answers, and their labels (B, ...), -100 everywhere else.

        A decoder's input and labels hold the answers too; an encoder's input does not.
        """
        if self.texts.decoder_only:
            ids, mask, labels = self.texts.prompts_with_answers(prompts, answers)
            nothing = labels.new_full((len(labels), tokens.shape[1]), -100)
            labels = torch.cat([nothing, labels], dim=1)
        else:
            ids, mask = self.texts.prompts(prompts, side="right")
            labels, kept = self.texts.prompts(answers, side="right")
            labels = labels.masked_fill(kept == 0, -100)
        embeds, attention = self._join(tokens, ids, mask)
        return embeds, attention, labels.to(embeds.device)

    def _join(self, tokens: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        projected = self.language_projection(tokens)
        embedded = self.language_model.get_input_embeddings()(ids.to(self.device))
        projected = projected.to(embedded.device, embedded.dtype)
        attention = torch.cat([mask.new_ones(projected.shape[:2]), mask], dim=1)
        return torch.cat([projected, embedded], dim=1), attention.to(embedded.device)
