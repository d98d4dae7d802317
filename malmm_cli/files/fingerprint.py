"""Fingerprints of files, without reading all of them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

__all__ = ["folder_identity", "identity", "is_same", "link_identity"]

_LINK = "link-"
END = 2**20  # bytes of the beginning and of the end that are looked at


def identity(path: str | os.PathLike[str], *, full: bool = False) -> str:
    """Size, time of change and a hash of the first and the last MiB; another file has another one.

    `full` hashes every byte instead and leaves the time out, so that a copy is the same file.
    Raises OSError for a file that cannot be read or is not a regular one.
    """
    if full:
        size, digest = _read(path, whole=True)
        return f"{size}-{digest}"
    size, digest = _read(path)
    return f"{size}-{os.stat(path).st_mtime_ns}-{digest}"


def link_identity(path: str | os.PathLike[str]) -> str | None:
    """Where a link to nothing leads, and when it was made; None for what is no such link."""
    if not os.path.islink(path) or os.path.exists(path):
        return None
    leads = hashlib.sha256(os.fsencode(os.readlink(path))).hexdigest()[:32]
    return f"{_LINK}{os.lstat(path).st_mtime_ns}-{leads}"


def is_same(path: str | os.PathLike[str], known: str) -> bool:
    """Whether a file or a link to nothing is the one that had this identity; raises OSError."""
    if known.startswith(_LINK):
        return link_identity(path) == known
    return identity(path, full=known.count("-") == 1) == known


def folder_identity(folder: Path, patterns: Iterable[str]) -> str:
    """A hash over names, sizes and ends of the files in a folder, wherever and whenever copied."""
    found = sorted({p for pattern in patterns for p in folder.glob(pattern) if p.is_file()})
    parts = [(path.name, *_read(path)) for path in found]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _read(path: str | os.PathLike[str], *, whole: bool = False) -> tuple[int, str]:
    """Size in bytes and the hash of the ends, or of all."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for its writer
        raise OSError(f"{os.fspath(path)}: not a regular file")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if whole:
            digest = hashlib.file_digest(file, "sha256")
        else:
            digest = hashlib.sha256(file.read(END))
            file.seek(max(size - END, END))
            digest.update(file.read(END))
    return size, digest.hexdigest()[:32]
