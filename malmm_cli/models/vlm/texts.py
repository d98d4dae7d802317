"""Prompts and answers → ids, and generated ids → text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from malmm_cli.models.tokens import one_line, padded, plain, special_ids

__all__ = ["Texts"]


class Texts:
    """A language model's tokenizer, used without a start of its own: prompts have every token.

    `ends` are the ids that end an answer, the usual one first.
    """

    decoder_only = True

    def __init__(self, tokenizer: Any, ends: Sequence[int]) -> None:
        self.tokenizer = tokenizer
        self.ends = list(dict.fromkeys(ends))
        self._silent = special_ids(tokenizer) | set(self.ends)

    @property
    def end(self) -> int:
        """The id that ends an answer."""
        return self.ends[0]

    @property
    def padding(self) -> int:
        """The id of nothing; always masked."""
        known = self.tokenizer.pad_token_id
        return int(self.end if known is None else known)

    def ids(self, text: str) -> list[int]:
        """The ids of a text."""
        return plain(self.tokenizer, text)

    def rows(self, texts: Sequence[str], *, side: str) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, L) int64 of texts, padded on the `side` given."""
        return self.padded([self.ids(text) for text in texts], side=side)

    def padded(self, rows: list[list[int]], *, side: str) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, L) int64 of rows of ids, padded on the `side` given."""
        return padded(rows, self.padding, side)

    def decode(self, ids: Tensor) -> list[str]:
        """Generated ids (B, L) to text, one line each; control characters become spaces."""
        return [self._text(row) for row in ids.tolist()]

    def _text(self, row: list[int]) -> str:
        kept = [number for number in row if number not in self._silent]
        return one_line(self.tokenizer.decode(kept, skip_special_tokens=True))
