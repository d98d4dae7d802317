"""Files and folders that appear under their names whole or not at all.

Until then they have unpredictable temporary names in the same folder, and are created so that no
link is followed. What a kill leaves can be recognised:

    .malmm-<hash of the name that it was to get>-<random>

New files have the permissions that the umask gives, replaced ones keep theirs. Whatever the system
says about writing becomes OutputError.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO

from malmm_cli.errors import OUTPUT_EXISTS, OutputError
from malmm_cli.files.descriptors import HINT, TOO_MANY

__all__ = [
    *(
        "PREFIX",
        "RERUN",
        "check_same",
        "new_file",
        "new_folder",
        "new_path",
    ),
    *("move_into", "permit", "remove_leftovers", "rename_folder", "scratch", "sync"),
    *("temporary", "writing"),
]

PREFIX = ".malmm-"
ROOM = "free up disk space, or choose another location"
RERUN = "rerun the same command to process missing items"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TEMPORARY = re.compile(re.escape(PREFIX) + r"([0-9a-f]{8})-[0-9a-f]{16}")


@contextmanager
def writing(path: Path, hint: str = ROOM) -> Iterator[None]:
    """Turns what the system says about writing to path into OutputError.

    The `hint` that is about room is given only where there is none.
    """
    try:
        yield
    except OSError as error:
        if error.errno in TOO_MANY:
            hint = HINT
        elif hint == ROOM and error.errno not in (None, *_FULL):  # None: libraries do not tell
            hint = "choose another location"
        reason = error.strerror or error
        raise OutputError(f"{path}: cannot be written: {reason}", hint=hint) from error


@contextmanager
def new_file(
    path: Path, *, durable: bool = False, hint: str = ROOM, replace: bool = True
) -> Iterator[IO[bytes]]:
    """A file that gets its name at the end; one of that name, or a link, is replaced.

    Without `replace`, one that another program made meanwhile stays: OutputError, "OutputExists".
    A `durable` one is on the disk at return, and its name too.
    """
    mode = _permissions(path, stat.S_ISREG)
    private = partial(os.open, mode=0o666 if mode is None else 0o600)
    new = temporary(path)
    with writing(path, hint):
        try:
            with open(new, "xb", opener=private) as file:
                if mode is not None:
                    new.chmod(mode)
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            if replace:
                os.replace(new, path)
            else:
                _link(new, path)
        finally:
            new.unlink(missing_ok=True)
    if durable:
        sync(path.parent)


@contextmanager
def new_path(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """`new_file` for writers that want a name: a path of the same name in a folder of its own."""
    mode = _permissions(path, stat.S_ISREG)
    with writing(path), scratch(path, private=mode is not None) as folder:
        yield (new := folder / path.name)
        new.chmod(folder.stat().st_mode & 0o666 if mode is None else mode)
        if durable:
            sync(new)
        os.replace(new, path)
    if durable:
        sync(path.parent)


@contextmanager
def new_folder(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A folder that gets its name when all is in it; an empty one of that name is replaced."""
    mode = _permissions(path, stat.S_ISDIR)
    with writing(path), scratch(path, private=mode is not None) as folder:
        yield folder
        if mode is not None:
            folder.chmod(mode)
        permit(folder)
        if durable:
            for inside in (*folder.rglob("*"), folder):
                sync(inside)
        rename_folder(folder, path)
    if durable:
        sync(path.parent)


@contextmanager
def scratch(path: Path, *, private: bool = False) -> Iterator[Path]:
    """A folder with a temporary name beside path; what is in it at the end is removed.

    Others can read it unless it is `private`. Raises OSError.
    """
    folder = temporary(path)
    try:
        folder.mkdir(0o700 if private else 0o777)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def rename_folder(new: Path, path: Path) -> None:
    """Give a folder another name, that of an empty one too; raises OSError if it is taken."""
    if path.is_dir():
        path.rmdir()
    os.replace(new, path)


def move_into(folder: Path, new: Path, *, last: str) -> None:
    """Move all that is in `new` into a folder, which keeps what has other names; raises OSError.

    The file named `last` comes last: without it, what is in the folder does not count.
    """
    for path in sorted(new.iterdir(), key=lambda path: path.name == last):
        target = folder / path.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(path, target)


def temporary(path: Path) -> Path:
    """An unpredictable name beside path."""
    return path.with_name(f"{PREFIX}{_mark(path.name)}-{secrets.token_hex(8)}")


def permit(folder: Path) -> None:
    """Give all in a folder the permissions of the folder, however it was made or copied."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    for parent, _, names in os.walk(folder):
        os.chmod(parent, mode)
        for name in names:
            os.chmod(os.path.join(parent, name), mode & 0o666)


def remove_leftovers(
    folder: Path, names: Iterable[str] | None = None, *, older_than: float = 0.0
) -> None:
    """Remove what killed runs left of things in a folder: of these names, or of any.

    Either nobody else may be making such things now, or only what was not touched for `older_than`
    seconds goes.
    """
    marks = None if names is None else set(map(_mark, names))
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            ours = _TEMPORARY.fullmatch(entry.name)
            if not ours or entry.is_symlink() or (marks is not None and ours[1] not in marks):
                continue
            if time.time() - entry.stat(follow_symlinks=False).st_mtime < older_than:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


def check_same(path: Path, known: os.stat_result) -> None:
    """Raise OutputError if the name no longer refers to the file that is being written."""
    try:
        same = os.path.samestat(os.stat(path), known)
    except OSError:
        same = False
    if not same:
        raise OutputError(f"{path}: removed or replaced while being written", hint=RERUN)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder where the system opens folders, are on the disk.

    Raises OSError for a file.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError:
        if not path.is_dir():
            raise


def _link(new: Path, path: Path) -> None:
    """Give a file one more name, which nothing may have; raises OutputError otherwise."""
    try:
        os.link(new, path)
    except OSError as error:
        if os.path.lexists(path):
            raise OutputError(
                f"{path}: exists; another program made it meanwhile",
                hint="move it, and rerun the same command",
                kind=OUTPUT_EXISTS,
            ) from error
        os.replace(new, path)  # a disk without hard links


def _mark(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:8]


def _permissions(path: Path, kind: Callable[[int], bool]) -> int | None:
    """Those of what stands under the name, if it is of that kind; links are not followed."""
    with suppress(OSError):
        mode = os.lstat(path).st_mode
        return stat.S_IMODE(mode) & 0o777 if kind(mode) else None
    return None
