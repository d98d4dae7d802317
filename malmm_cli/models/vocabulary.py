"""A tokenizer for untrained models, in LLaMA's form."""

from __future__ import annotations

import string
from typing import Any

import transformers

__all__ = ["LETTERS", "llama_tokenizer"]

_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LETTERS = [*string.ascii_letters, *string.digits, *string.punctuation]


def llama_tokenizer(words: list[str], **options: Any) -> Any:
    """Byte-pair encoding: <unk> <s> </s>, 256 bytes, letters, then beginnings of words.

    Merges run through each word from its left, so every beginning of a word is a piece. `options`
    go to transformers.
    """
    pieces = ["<unk>", "<s>", "</s>", *_BYTES, "▁", *LETTERS]
    merges = {}
    for word in words:
        for end in range(1, len(word) + 1):
            merges["▁" + word[: end - 1], word[end - 1]] = "▁" + word[:end]
    vocab = {piece: number for number, piece in enumerate([*pieces, *merges.values()])}
    return transformers.LlamaTokenizer(vocab=vocab, merges=list(merges), **options)
