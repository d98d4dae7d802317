"""Prompts and answers as the two tokenizers read them, and generated ids back to text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Texts"]

# The reference's max_txt_len: what the Q-Former reads of an instruction.
INSTRUCTION_LIMIT = 128

# A terminal would obey them.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class Texts:
    """The Q-Former's tokenizer and the language model's.

    `decoder_only` language models (Vicuna) get a prompt that starts with `</s>`, as in the
    reference, whose tokenizer has that for its first token; encoder-decoders (Flan-T5) get what
    their tokenizer makes of it.
    """

    def __init__(
        self, instruction: Any, language: Any, *, decoder_only: bool, positions: int
    ) -> None:
        instruction.truncation_side = "left"  # the reference's; a folder's tokenizer may say right
        self.instruction = instruction
        self.language = language
        self.decoder_only = decoder_only
        self.instruction_limit = min(INSTRUCTION_LIMIT, positions)

    @property
    def padding(self) -> int:
        """The language model's id for nothing; always masked."""
        known = self.language.pad_token_id
        return int(self.language.eos_token_id if known is None else known)

    def instructions(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, L) int64 for the Q-Former, padded right, cut on the left if too long."""
        batch = self.instruction(
            list(prompts),
            padding="longest",
            padding_side="right",
            truncation=True,
            max_length=self.instruction_limit,
            return_tensors="pt",
        )
        return batch["input_ids"], batch["attention_mask"]

    def instruction_length(self, prompt: str) -> int:
        """Tokens of a prompt for the Q-Former, uncut; it reads `instruction_limit` of them."""
        return len(self.instruction(prompt, verbose=False)["input_ids"])

    def prompts(self, prompts: Sequence[str], *, side: str) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, L) int64 for the language model, padded on the `side` given."""
        return self._pad([self._with_first_token(prompt) for prompt in prompts], side)

    def prompts_with_answers(
        self, prompts: Sequence[str], answers: Sequence[str]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, mask and labels (B, L) int64 for training a decoder: prompt, answer, `</s>`.

        Labels are -100 everywhere but on the answer and its `</s>`.
        """
        eos = self.language.eos_token_id
        asked = [self._with_first_token(prompt) for prompt in prompts]
        told = [[*self._plain(answer), eos] for answer in answers]
        ids, mask = self._pad([a + b for a, b in zip(asked, told, strict=True)], "right")
        labels = ids.masked_fill(mask == 0, -100)
        for row, prompt in zip(labels, asked, strict=True):
            row[: len(prompt)] = -100
        return ids, mask, labels

    def decode(self, ids: Tensor) -> list[str]:
        """Generated ids (B, L) to text, one line each; control characters become spaces."""
        if self.decoder_only:  # ids below </s> are <unk> and <s>, which say nothing
            ids = ids.clamp(min=self.language.eos_token_id)
        texts: list[str] = self.language.batch_decode(ids, skip_special_tokens=True)
        return [_CONTROL.sub(" ", text).strip() for text in texts]

    def _with_first_token(self, prompt: str) -> list[int]:
        if self.decoder_only:
            return [self.language.eos_token_id, *self._plain(prompt)]
        ids: list[int] = self.language(prompt)["input_ids"]
        return ids

    def _plain(self, text: str) -> list[int]:
        ids: list[int] = self.language(text, add_special_tokens=False)["input_ids"]
        return ids

    def _pad(self, rows: list[list[int]], side: str) -> tuple[Tensor, Tensor]:
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self.padding)
        mask = torch.zeros(len(rows), longest, dtype=torch.int64)
        for row, tokens in enumerate(rows):
            place = slice(longest - len(tokens), None) if side == "left" else slice(len(tokens))
            ids[row, place] = torch.tensor(tokens)
            mask[row, place] = 1
        return ids, mask
