"""The files of one model: which of a repository are needed, which are on disk."""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any

from malmm_cli.checkpoints.layout import INDEX, WHOLE, read_config, read_header, shards
from malmm_cli.errors import ModelError

__all__ = ["File", "Weights", "file_of", "is_complete", "read_weights", "size_text", "wanted"]

# Named files and shards: never a pickle, never code.
_NAMED = {
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer.model", "spiece.model", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "qformer_tokenizer/vocab.txt"),
    "video_preprocessor_config.json",
    *("qformer_tokenizer/tokenizer.json", "qformer_tokenizer/tokenizer_config.json"),
    *("qformer_tokenizer/special_tokens_map.json", "qformer_tokenizer/added_tokens.json"),
    *(INDEX, WHOLE),
}
_is_shard = re.compile(r"model-\d{5}-of-\d{5}\.safetensors", re.ASCII).fullmatch
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

# Required files: one of each line.
_NEEDED = (
    ("config.json",),
    ("tokenizer.json", "tokenizer.model", "spiece.model"),
    ("qformer_tokenizer/tokenizer.json", "qformer_tokenizer/vocab.txt"),
    ("model*.safetensors",),
)


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
    """Summary of the headers of a folder's weight files."""

    shards: dict[str, int]
    parameters: int
    dtypes: dict[str, int]


def wanted(
    listed: dict[str, File | None], repository: str, ask: Callable[[str], File]
) -> list[File]:
    """Select the files to download from a listing, small ones first; raises ModelError.

    Where the list lacks the size or the hash of a file, `ask` tells them.
    """
    files = {name: file for name, file in listed.items() if name in _NAMED or _is_shard(name)}
    lacking = [any_of[0] for any_of in _NEEDED if not any(fnmatch.filter(files, p) for p in any_of)]
    if lacking:
        raise ModelError(
            f"{repository} is not an InstructBLIP model in safetensors format: "
            f"missing {', '.join(lacking)}",
            hint="only safetensors is supported, since other formats can run code"
            if lacking == [_NEEDED[-1][0]]
            else "use an InstructBLIP model; `malmm models` lists some",
        )
    if INDEX in files:
        files.pop(WHOLE, None)
    found = [file or ask(name) for name, file in files.items()]
    return sorted(found, key=lambda file: (file.name.endswith(".safetensors"), file.name))


def file_of(name: str, size: Any, digest: Any) -> File | None:
    """Build a File; None if size or hash is invalid."""
    if not isinstance(size, int) or size < 0 or not _HASH.fullmatch(str(digest)):
        return None
    file = File(name, size, str(digest))
    return file if size or file.hash_of(BytesIO()) == file.hash else None


def is_complete(folder: Path) -> bool:
    """Whether a folder has configuration, tokenizers and all weights."""
    if not all(any(any(folder.glob(p)) for p in any_of) for any_of in _NEEDED):
        return False
    try:
        shards(folder)
    except ModelError:
        return False
    return True


def read_weights(folder: Path) -> Weights:
    """Sizes, parameters and number types of a model's files, without reading the weights.

    Raises ModelError where they, or the configuration, are not those of a model.
    """
    read_config(folder)
    sizes, dtypes = {}, Counter[str]()
    for name in shards(folder):
        for stored in read_header(folder / name).values():
            dtypes[stored.dtype] += stored.numbers
        sizes[name] = (folder / name).stat().st_size
    return Weights(sizes, sum(dtypes.values()), dict(dtypes))


def size_text(size: int) -> str:
    """Format a number of bytes: 15.8 GB."""
    for unit, one in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= one:
            return f"{size / one:.1f} {unit}"
    return f"{size} bytes"
