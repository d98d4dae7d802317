"""Prompts and answers → ids of both tokenizers, and generated ids → text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

from torch import Tensor

from malmm_cli.errors import ModelError
from malmm_cli.models.tokens import encoded, one_line, padded, plain, read, special_ids

__all__ = ["Texts"]

# The reference's max_txt_len: what the Q-Former reads of an instruction.
INSTRUCTION_LIMIT = 128

# Prompts whose ids are remembered.
REMEMBERED = 256


class Texts:
    """The Q-Former's tokenizer and the language model's.

    `decoder_only` language models (Vicuna) get a prompt that starts with the tokenizer's start
    token, if it has one: `</s>` in the reference. Encoder-decoders (Flan-T5) get what their
    tokenizer makes of it. Which tokens are special is for the tokenizers to say; of the ids that
    a configuration gives as `ends`, those count that are.
    """

    def __init__(
        self,
        instruction: Any,
        language: Any,
        *,
        decoder_only: bool,
        positions: int,
        ends: Sequence[int] = (),
    ) -> None:
        instruction.truncation_side = "left"  # the reference's; a folder's tokenizer may say right
        self.instruction = instruction
        self.language = language
        self.decoder_only = decoder_only
        self.instruction_limit = min(INSTRUCTION_LIMIT, positions)
        # a prompt is asked for several times: for its size, for the memory, for the answer
        self._instruction_ids = lru_cache(REMEMBERED)(partial(read, instruction))
        self._prompt_ids = lru_cache(REMEMBERED)(self._prompt)
        self._silent = special_ids(language)
        own = language.eos_token_id
        counted = self._silent if own is not None else set(language.get_vocab().values())
        self.ends = sorted(counted.intersection([*ends, *([] if own is None else [own])]))
        self._silent.update(self.ends)  # a tokenizer without an end of its own knows it as a word

    @property
    def end(self) -> int:
        """The language model's id for the end of an answer; `ends` are all that it may use."""
        own = self.language.eos_token_id
        return int(self.ends[0] if own is None else own)

    @property
    def padding(self) -> int:
        """The language model's id for nothing; always masked."""
        known = self.language.pad_token_id
        return int(self.end if known is None else known)

    def instructions(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, L) int64 for the Q-Former, padded right, cut on the left if too long."""
        limit = self.instruction_limit
        read = [self._instruction_cut(prompt) for prompt in prompts]
        longest = max(map(len, read))
        if longest > limit:  # special tokens alone, which are never cut
            raise ModelError(
                f"the Q-Former reads {limit} tokens, but its tokenizer returned {longest}",
                hint="copy the model folder again, or use another one",
            )
        return padded(read, self.instruction.pad_token_id or 0, "right")

    def cut(self, prompt: str) -> tuple[str, ...]:
        """A warning if the Q-Former does not read the whole prompt; the language model does."""
        length, limit = len(self._instruction_ids(prompt)), self.instruction_limit
        if length <= limit:
            return ()
        return (f"the prompt has {length} tokens; the Q-Former reads only the last {limit}",)

    def prompts(self, prompts: Sequence[str], *, side: str) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, L) int64 for the language model, padded on the `side` given."""
        return padded([self._prompt_ids(prompt) for prompt in prompts], self.padding, side)

    def prompts_with_answers(
        self, prompts: Sequence[str], answers: Sequence[str]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, mask and labels (B, L) int64 for training a decoder: prompt, answer, end token.

        Labels are -100 everywhere but on the answer and its end.
        """
        given = [self._prompt_ids(prompt) for prompt in prompts]
        target = [[*plain(self.language, answer), self.end] for answer in answers]
        rows = [a + b for a, b in zip(given, target, strict=True)]
        ids, mask = padded(rows, self.padding, "right")
        labels = ids.masked_fill(mask == 0, -100)
        for row, prompt in zip(labels, given, strict=True):
            row[: len(prompt)] = -100
        return ids, mask, labels

    def decode(self, ids: Tensor) -> list[str]:
        """Generated ids (B, L) to text, one line each; control characters become spaces."""
        rows = [[i for i in row if i not in self._silent] for row in ids.tolist()]
        texts: list[str] = self.language.batch_decode(rows, skip_special_tokens=True)
        return [one_line(text) for text in texts]

    def _instruction_cut(self, prompt: str) -> list[int]:
        ids, limit = self._instruction_ids(prompt), self.instruction_limit
        if len(ids) <= limit:
            return ids
        return read(self.instruction, prompt, truncation=True, max_length=limit)

    def _prompt(self, prompt: str) -> list[int]:
        """A prompt for the language model; a decoder's starts with a start token, and goes on.

        An end that the tokenizer puts there is taken off.
        """
        found = encoded(self.language, prompt, return_special_tokens_mask=True)
        ids, added = found["input_ids"], found["special_tokens_mask"]
        if not self.decoder_only:
            return ids
        if added and added[-1] and ids[-1] in self.ends:
            ids, added = ids[:-1], added[:-1]
        start = self.language.bos_token_id
        return ids if any(added) or start is None else [int(start), *ids]
