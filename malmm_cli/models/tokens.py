"""Tokenizers of model folders: reading one, and what it makes of texts and ids."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from malmm_cli.checkpoints.layout import TOKENIZERS, check_regular, remedy
from malmm_cli.errors import ModelError, first_line
from malmm_cli.models.config import quiet

__all__ = ["encoded", "one_line", "padded", "plain", "read", "read_tokenizer", "special_ids"]

# SentencePiece's names for tokens that are not text.
_PIECES = ("<unk>", "<s>", "</s>", "<pad>")

# A terminal would obey them.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def read_tokenizer(folder: Path, needed: str) -> Any:
    """The tokenizer in a folder; ModelError, which says what is `needed`, where there is none."""
    try:
        if not any((folder / name).is_file() for name in TOKENIZERS):
            # transformers would make up an empty tokenizer
            raise FileNotFoundError(f"none of {', '.join(TOKENIZERS)} found")
        check_regular(folder)
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
            # what is wrong with it may show only when it is used
            for special in (True, False):
                tokenizer(["a"], add_special_tokens=special, truncation=True, max_length=8)
            tokenizer.batch_decode([tokenizer("a")["input_ids"]], skip_special_tokens=True)
            return tokenizer
    except ModelError:
        raise
    except BaseException as error:
        # transformers' errors differ between versions, and a panic in Rust is not an Exception
        if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":
            raise
        raise ModelError(
            f"{folder}: the tokenizer cannot be read: {first_line(error)}",
            hint=f"expected {needed}: {remedy(folder)}",
        ) from error


def read(tokenizer: Any, text: str, **how: Any) -> list[int]:
    """A text's ids; ModelError where a tokenizer has no token for what is in it."""
    return encoded(tokenizer, text, **how)["input_ids"]


def plain(tokenizer: Any, text: str) -> list[int]:
    """A text's ids without tokens around it; raises as `read`."""
    return read(tokenizer, text, add_special_tokens=False)


def encoded(tokenizer: Any, text: str, **how: Any) -> dict[str, list[int]]:
    """What a tokenizer returns for a text; ModelError where it has no token for what is in it."""
    try:
        return dict(tokenizer(text, verbose=False, **how))
    except Exception as error:  # the library raises nothing more special
        raise ModelError(
            f"the model's tokenizer cannot read {text[:80]!r}: {first_line(error)}",
            hint="rephrase it, or use a model whose tokenizer has an unknown token",
        ) from error


def special_ids(tokenizer: Any) -> set[int]:
    """Ids that say nothing: those a tokenizer calls special, and SentencePiece's own pieces.

    A tokenizer that has `</s>` for its start does not always call `<s>` special too.
    """
    known = tokenizer.get_vocab()
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {*tokenizer.all_special_ids, *added, *(known[p] for p in _PIECES if p in known)}


def padded(rows: list[list[int]], padding: int, side: str) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, L) int64 of rows of ids, padded on the `side` given."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), padding)
    mask = torch.zeros(len(rows), longest, dtype=torch.int64)
    for row, tokens in enumerate(rows):
        span = slice(longest - len(tokens), None) if side == "left" else slice(len(tokens))
        ids[row, span] = torch.tensor(tokens, dtype=torch.int64)
        mask[row, span] = 1
    return ids, mask


def one_line(text: str) -> str:
    """A text with spaces in place of control characters, none at its ends."""
    return _CONTROL.sub(" ", text).strip()
