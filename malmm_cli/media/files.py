"""Checks of a path before any decoder opens it."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from malmm_cli.errors import MediaError, UsageError

__all__ = [
    "PLAYLISTS",
    "TEXTS",
    "check",
    "head",
    "is_text",
    "kind_of",
    "nameless",
    "not_a_stream",
    "playlist",
    "shown",
]

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# Text that names other files. FFmpeg would follow it wherever it points.
PLAYLIST = re.compile(
    rb"#EXTM3U|ffconcat version|<\?xml.{0,400}<MPD|<MPD|v=0\r?\n|\[playlist\]", re.S
)

# FFmpeg would look for other files by a name that holds these: `img%03d.png` and `[ab]*.png`.
PATTERN = re.compile(r"[%*?{}\[\]]")

Kind = Literal["movie", "heif", "other"]
HEIF = {b"avif", b"avis", b"heic", b"heim", b"heis", b"heix", b"hevc", b"hevx", b"mif1", b"msf1"}
EBML = b"\x1a\x45\xdf\xa3"

# FFmpeg's names for such text, and for text that it would draw as a picture
PLAYLISTS = {"concat", "dash", "hls", "imf", "sdp", "webvtt"}
TEXTS = {"tty", "bin", "xbin", "adf", "idf"}

_TEXT = re.compile(rb"[\t\n\f\r -~\x80-\xff]*")
_SEARCHED, _PACKETS = 2**16, 5  # bytes that are searched for that many consecutive packets
# the mark, no error, and something in it: a payload, an adaptation field, or both
_PACKET = re.compile(rb"G[\0-\x7f].[^\0-\x0f\x40-\x4f\x80-\x8f\xc0-\xcf]", re.S)


def check(path: str) -> None:
    """Raise MediaError, or UsageError if `path` cannot be a path, unless it is a file to try."""
    if not path:
        raise UsageError("the path of the video is empty", hint="give a video file")
    if path == "-":
        raise UsageError(
            "-: reading a video from standard input is not supported",
            hint="save the video to a file first",
        )
    if URL.match(path) and not os.path.exists(path):
        raise UsageError(f"{shown(path)}: URLs are not supported", hint="download the file first")
    try:
        status = os.stat(path)
    except PermissionError as error:
        raise _unreadable(path) from error
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
        raise _missing(path) from error
    if stat.S_ISDIR(status.st_mode):
        hint = f"give a video file, or use `malmm batch {shown(path)}`"
        raise MediaError(f"{shown(path)}: is a folder", hint=hint, kind="Folder")
    if not stat.S_ISREG(status.st_mode):
        hint = "save the video to a file first"
        raise MediaError(f"{shown(path)}: not a regular file", hint=hint, kind="NotAVideo")
    if status.st_size == 0:
        raise MediaError(f"{shown(path)}: the file is empty", kind="Empty")
    if PLAYLIST.match(head(path).removeprefix(b"\xef\xbb\xbf").lstrip()):
        raise playlist(path)


def kind_of(path: str) -> Kind:
    """Return what the first bytes of a file say: an MP4 or Matroska movie, HEIF, or anything else.

    Of a movie nothing need be asked that still images may hold.
    """
    beginning = head(path)
    if beginning[4:8] == b"ftyp":
        return "heif" if beginning[8:12] in HEIF else "movie"
    return "movie" if beginning.startswith(EBML) else "other"


def is_text(path: str) -> bool:
    """Whether the first bytes of a file are those of plain text."""
    return _TEXT.fullmatch(head(path)) is not None


def head(path: str) -> bytes:
    """Return the first bytes of the file; raises MediaError where permission is denied."""
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


def not_a_stream(path: str) -> bool:
    """Whether a file ends as MPEG-TS does and is something else, as TypeScript and Qt's texts are.

    A transport stream has 0x47 at every packet's beginning; packets are 188 bytes, with a time
    before or a code behind 192 or 204. Not all of them need be whole.
    """
    if not path.lower().endswith((".ts", ".mts")):
        return False
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False  # opening it gives the error
        with open(path, "rb") as file:
            start = file.read(_SEARCHED)
    except OSError:
        return False
    return b"\0" not in start or not _has_packets(start)  # every stream has zeros, no text has


def _has_packets(start: bytes) -> bool:
    """Whether packets follow each other somewhere, as many as are looked at or as there can be."""
    for length in (188, 192, 204):
        number = min(_PACKETS, max(1, len(start) // length))
        for found in re.finditer(b"G", start):
            begins = range(found.start(), len(start) - 3, length)[:number]
            if len(begins) == number and all(_PACKET.match(start, begin) for begin in begins):
                return True
    return False


def shown(path: str) -> str:
    """Return the path as given if it fits on a line of text, else quoted."""
    return path if path.isprintable() else repr(path)


def playlist(path: str) -> MediaError:
    """Return the error for a file that names other files."""
    hint = "give the video file itself"
    return MediaError(f"{shown(path)}: a playlist, not a video", hint=hint, kind="Playlist")


def _missing(path: str) -> MediaError:
    file = path.rstrip("/" + os.sep)
    hint = f"without the / at its end: {shown(file)}" if os.path.isfile(file) else None
    if glob.has_magic(path):
        hint = "`malmm batch` takes patterns"
    if os.path.islink(path):
        return MediaError(
            f"{shown(path)}: no such file; it is a link to {shown(os.readlink(path))}",
            hint=hint,
            kind="BrokenLink",
        )
    return MediaError(f"{shown(path)}: no such file", hint=hint, kind="Missing")


def _unreadable(path: str) -> MediaError:
    return MediaError(
        f"{shown(path)}: permission denied", hint="check its permissions", kind="Unreadable"
    )
