"""Pieces of prompts → ids as LLaMA's first tokenizer gave them, and generated ids → text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from tokenizers.pre_tokenizers import Metaspace
from torch import Tensor

from malmm_cli.models.tokens import one_line, plain, special_ids
from malmm_cli.models.video_llama.prompts import Form

__all__ = ["Texts"]


class Texts:
    """A LLaMA tokenizer for one form of conversation.

    `ends` are the ids that end an answer; `stops` the sequences of ids that do so too.
    """

    def __init__(self, tokenizer: Any, form: Form, ends: Sequence[int]) -> None:
        # The authors' version puts a space before every part of a text, also after `<s>`; newer
        # ones do only where a folder says so.
        backend = tokenizer.backend_tokenizer
        backend.normalizer = None
        backend.pre_tokenizer = Metaspace(replacement="▁", prepend_scheme="always", split=False)
        self.tokenizer, self.form = tokenizer, form
        own = tokenizer.eos_token_id
        self.ends = list(dict.fromkeys([*([] if own is None else [int(own)]), *ends]))
        known = tokenizer.get_vocab()
        spelled = [[known.get(piece) for piece in stop] for stop in form.stops]
        self.stops = [ids for ids in spelled if None not in ids]
        self._silent = special_ids(tokenizer)

    @property
    def end(self) -> int:
        """The id that ends an answer."""
        return self.ends[0]

    @property
    def padding(self) -> int:
        """The id of nothing, which is always masked."""
        known = self.tokenizer.pad_token_id
        return self.end if known is None else int(known)

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each piece of a prompt, the start token before the first."""
        start = self.tokenizer.bos_token_id
        first = [] if start is None else [int(start)]
        return [[*(() if k else first), *self.ids(text)] for k, text in enumerate(texts)]

    def ids(self, text: str) -> list[int]:
        """The ids of a text, without tokens around it."""
        return plain(self.tokenizer, text)

    def decode(self, ids: Tensor) -> list[str]:
        """Generated ids (B, L) to text, one line each, cut where the next turn would begin."""
        return [self._text(row) for row in ids.tolist()]

    def _text(self, row: list[int]) -> str:
        told = takewhile(lambda number: number not in self.ends, row)
        kept = [number for number in told if number not in self._silent]
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        text = text.split(self.form.end)[0].split(self.form.role)[-1]
        return one_line(text)
