"""The files of one model: which of a repository are needed, which are on disk."""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any

from malmm_cli.checkpoints.layout import (
    FAMILIES,
    INDEX,
    WHOLE,
    Layout,
    layout_of,
    read_header,
    shards,
)
from malmm_cli.errors import ModelError

__all__ = [
    *("File", "Weights", "check_listed", "file_of", "is_complete", "read_weights", "size_text"),
    "wanted",
]

# Named files and shards: never a pickle, never code.
_NAMED = {
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "merges.txt"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.json", "chat_template.jinja", "video_preprocessor_config.json"),
    *(INDEX, WHOLE),
}
# In a folder inside the model's own.
_INSIDE = (
    *("vocab.txt", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json"),
)
# Qwen3.5's are named "model.safetensors-00001-of-00002.safetensors".
_is_shard = re.compile(r"model(\.safetensors)?-\d{5}-of-\d{5}\.safetensors", re.ASCII).fullmatch
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

_WEIGHTS = "model*.safetensors"


@dataclass(frozen=True)
class File:
    """A file as the Hub lists it; `hash` is SHA-256 for large ones and git's own for others."""

    name: str
    size: int
    hash: str

    def is_at(self, path: Path, *, verify: bool = False) -> bool:
        """Whether path holds this file, judged by its size or, if asked for, by its hash."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        if not verify:
            return True
        with path.open("rb") as content:
            return self.hash_of(content) == self.hash

    def hash_of(self, content: BufferedIOBase) -> str:
        """Return the hash that the Hub lists for this content."""

        def start() -> Any:
            if len(self.hash) == 64:
                return hashlib.sha256()
            return hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False)

        return hashlib.file_digest(content, start).hexdigest()


@dataclass(frozen=True)
class Weights:
    """Summary of the headers of a folder's weight files; `whole` parameters are never quantised."""

    shards: dict[str, int]
    parameters: int
    whole: int
    dtypes: dict[str, int]


def _needed(layout: Layout) -> list[tuple[str, ...]]:
    """Patterns of the files that a model of a layout needs: one of each tuple."""
    inside = [(f"{name}/tokenizer.json", f"{name}/vocab.txt") for name in layout.folders]
    words = ("tokenizer.json", "tokenizer.model", "spiece.model")
    return [("config.json",), words, *inside, (_WEIGHTS,)]


def _lacking(layout: Layout, files: Collection[str]) -> list[str]:
    """What a model of a layout needs and is not among files, by the first name of each."""
    return [
        any_of[0]
        for any_of in _needed(layout)
        if not any(fnmatch.filter(files, pattern) for pattern in any_of)
    ]


def wanted(
    listed: dict[str, File | None], repository: str, ask: Callable[[str], File]
) -> list[File]:
    """Select the files to download from a listing, small ones first; raises ModelError.

    Which family the model is of shows once config.json is there; until then the list must have what
    some family needs. Where it lacks the size or the hash of a file, `ask` tells them.
    """
    rows = FAMILIES.values()
    inside = {f"{name}/{file}" for row in rows for name in row.folders for file in _INSIDE}
    known = _NAMED | inside
    files = {name: file for name, file in listed.items() if name in known or _is_shard(name)}
    lacking = min((_lacking(row, files) for row in rows), key=len)
    if lacking:
        raise _incomplete(repository, lacking)
    if INDEX in files:
        files.pop(WHOLE, None)
    found = [file or ask(name) for name, file in files.items()]
    return sorted(found, key=lambda file: (file.name.endswith(".safetensors"), file.name))


def check_listed(folder: Path, names: Collection[str], repository: str) -> None:
    """Raise ModelError if names lack a file that the family of the folder's config.json needs."""
    lacking = _lacking(layout_of(folder), names)
    if lacking:
        raise _incomplete(repository, lacking)


def _incomplete(repository: str, lacking: list[str]) -> ModelError:
    return ModelError(
        f"{repository} is not a supported model in safetensors format: "
        f"missing {', '.join(lacking)}",
        hint="only safetensors is supported, since other formats can run code"
        if lacking == [_WEIGHTS]
        else "use another model; `malmm models` lists some",
    )


def file_of(name: str, size: Any, digest: Any) -> File | None:
    """Build a File; None if size or hash is invalid."""
    if not isinstance(size, int) or size < 0 or not _HASH.fullmatch(str(digest)):
        return None
    file = File(name, size, str(digest))
    return file if size or file.hash_of(BytesIO()) == file.hash else None


def is_complete(folder: Path) -> bool:
    """Whether a folder has configuration, tokenizers and all weights."""
    if not any(_has_all(folder, row) for row in _layouts(folder)):
        return False
    try:
        shards(folder)
    except ModelError:
        return False
    return True


def _layouts(folder: Path) -> list[Layout]:
    """The layout of a folder's family; all that are known where its configuration is unreadable."""
    try:
        return [layout_of(folder)]
    except ModelError:
        return [*FAMILIES.values()]


def _has_all(folder: Path, layout: Layout) -> bool:
    return all(any(any(folder.glob(p)) for p in any_of) for any_of in _needed(layout))


def read_weights(folder: Path) -> Weights:
    """Sizes, parameters and number types of a model's files, without reading the weights.

    Raises ModelError where they, or the configuration, are not those of a model.
    """
    layout = layout_of(folder)
    sizes, dtypes, whole = {}, Counter[str](), 0
    for file in shards(folder):
        for name, stored in read_header(folder / file).items():
            dtypes[stored.dtype] += stored.numbers
            whole += 0 if layout.quantizes(name, stored.shape) else stored.numbers
        sizes[file] = (folder / file).stat().st_size
    return Weights(sizes, sum(dtypes.values()), whole, dict(dtypes))


def size_text(size: int) -> str:
    """Format a number of bytes: 15.8 GB."""
    for unit, one in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= one:
            return f"{size / one:.1f} {unit}"
    return f"{size} bytes"
