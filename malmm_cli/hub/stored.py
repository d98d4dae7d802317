"""The size of a repository in the Hub client's cache, and its removal."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from malmm_cli.errors import ModelError, OutputError
from malmm_cli.hub.download import lock_of, storage_of

__all__ = ["remove", "size_of", "stored_size"]


def stored_size(repository: str) -> int:
    """The bytes of all files of a repository, of every revision and of parts; 0 without any."""
    return size_of(storage_of(repository))


def size_of(folder: Path) -> int:
    """The bytes of all files below a folder; links and files that vanish meanwhile take none."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                status = Path(parent, name).lstat()
                size += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return size


def remove(repository: str) -> int:
    """Remove all of a repository, partial downloads too; return the bytes freed.

    The client's own removal knows only whole revisions, and no lock. Raises ModelError while
    another process downloads it, OutputError where it cannot be removed.
    """
    from huggingface_hub import utils

    client: Any = utils
    storage = storage_of(repository)
    try:
        with client.WeakFileLock(lock_of(repository), timeout=0.1):
            size = size_of(storage)
            shutil.rmtree(storage)
    except TimeoutError:
        raise ModelError(
            f"{repository} is being downloaded by another process", hint="try again later"
        ) from None
    except OSError as error:
        raise OutputError(f"{storage}: cannot be removed: {error.strerror or error}") from error
    return size
