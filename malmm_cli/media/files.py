"""Paths: what can be said about a file before any decoder sees it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from malmm_cli.errors import MediaError, UsageError

__all__ = ["PLAYLISTS", "TEXTS", "check", "head", "nameless", "playlist", "shown"]

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# Text that names other files. FFmpeg would follow it wherever it points.
PLAYLIST = re.compile(
    rb"#EXTM3U|ffconcat version|<\?xml.{0,400}<MPD|<MPD|v=0\r?\n|\[playlist\]", re.S
)

# FFmpeg would look for other files by a name that holds these: `img%03d.png` and `[ab]*.png`.
PATTERN = re.compile(r"[%*?{}\[\]]")

# FFmpeg's names for such text, and for text that it would draw as a picture
PLAYLISTS = {"concat", "dash", "hls", "imf", "sdp", "webvtt"}
TEXTS = {"tty", "bin", "xbin", "adf", "idf"}


def check(path: str) -> None:
    """Raise MediaError, or UsageError for what is no path, unless `path` is a file to try."""
    if path == "-":
        raise UsageError("-: standard input is not taken", hint="save the video to a file first")
    if URL.match(path) and not os.path.exists(path):
        raise UsageError(f"{shown(path)}: addresses are not taken", hint="download the file first")
    try:
        status = os.stat(path)
    except PermissionError as error:
        raise _unreadable(path) from error
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
        raise MediaError(f"{shown(path)}: no such file", kind="Missing") from error
    if stat.S_ISDIR(status.st_mode):
        hint = "give a video file, or the folder to `malmm batch`"
        raise MediaError(f"{shown(path)}: is a folder", hint=hint, kind="Folder")
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(f"{shown(path)}: not a regular file", kind="NotAVideo")
    if status.st_size == 0:
        raise MediaError(f"{shown(path)}: the file is empty", kind="Empty")
    if PLAYLIST.match(head(path).removeprefix(b"\xef\xbb\xbf").lstrip()):
        raise playlist(path)


def head(path: str) -> bytes:
    """Return the first bytes of the file; raises MediaError where it may not be read."""
    try:
        with open(path, "rb") as file:
            return file.read(1024)
    except OSError as error:
        raise _unreadable(path) from error


@contextmanager
def nameless(path: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Give FFmpeg's address of a file, and the descriptors that a program needs to open it.

    `file:` keeps a name like `a:b.mp4` from being an address itself. A name that FFmpeg could take
    for a pattern, or that would break the lines of its log, is hidden behind a descriptor.
    """
    if os.name == "nt" or (path.isprintable() and not PATTERN.search(path)):
        yield f"file:{path}", ()
        return
    number = os.open(path, os.O_RDONLY)
    try:
        yield f"file:/dev/fd/{number}", (number,)
    finally:
        os.close(number)


def shown(path: str) -> str:
    """Return the path as given if it fits on a line of text, else quoted."""
    return path if path.isprintable() else repr(path)


def playlist(path: str) -> MediaError:
    """Return the error for a file that names other files."""
    hint = "give the video itself"
    return MediaError(f"{shown(path)}: a playlist, not a video", hint=hint, kind="Playlist")


def _unreadable(path: str) -> MediaError:
    return MediaError(
        f"{shown(path)}: may not be read", hint="look at its permissions", kind="Unreadable"
    )
