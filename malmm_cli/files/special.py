"""Names that are not regular files: pipes, devices, open descriptors."""

from __future__ import annotations

import errno
import os
import re
import stat
import time

from malmm_cli.errors import OUTPUT_EXISTS, UsageError

__all__ = ["STREAMS", "check_own", "kind_of", "open_stream"]

STREAMS = ("a pipe", "a device", "an open stream")  # what can be written to as it is
PATIENCE = 10.0  # seconds within which a pipe must be opened for reading

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a disk",
    stat.S_IFSOCK: "a socket",
}
_OPEN = re.compile(r"/dev/std(out|err)|/(?:dev|proc/self)/fd/(\d+)")


def kind_of(path: str | os.PathLike[str]) -> str:
    """The kind of file under a name, links followed: "a file", "a pipe"; empty if there is none."""
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except (OSError, ValueError):
        return ""
    if kind == stat.S_IFREG and _OPEN.fullmatch(os.fspath(path)):  # any file may be behind it
        return "an open stream"
    return _KINDS.get(kind, "not a file")


def check_own(path: str | os.PathLike[str]) -> None:
    """Raise UsageError where a file of a name that malmm gives would not be one of its own.

    A link would lead elsewhere, a pipe or a device cannot be read back.
    """
    kind = "a link" if os.path.islink(path) else kind_of(path)
    if kind not in ("", "a file"):
        raise UsageError(
            f"{os.fspath(path)}: is {kind}, where malmm would write a file",
            hint="remove it, or choose another output",
            kind=OUTPUT_EXISTS,
        )


def open_stream(path: str, flags: int) -> int:
    """An opener for output; opening a pipe without a reader would block forever."""
    if ours := _OPEN.fullmatch(path):  # others go on writing where this ends
        return os.dup(int(ours[2] or {"out": 1, "err": 2}[ours[1]]))
    end, at_once = time.monotonic() + PATIENCE, getattr(os, "O_NONBLOCK", 0)  # none on Windows
    while True:
        try:
            handle = os.open(path, (flags | at_once) & ~os.O_CREAT)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > end:
                raise OSError(errno.ENXIO, "it has no reader") from error
            time.sleep(0.05)
        else:
            if at_once:
                os.set_blocking(handle, True)
            return handle
