"""One output file for each video: its name, which may be below folders, and its content."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from malmm_cli.files.jsonl import encoded
from malmm_cli.formats import Failure, Item, format_whole

__all__ = ["Names", "content", "is_name"]

LONGEST, LONGEST_PART = 200, 255  # bytes of a name that is made up, and that most disks take
SUFFIXES = (".txt", ".json", ".jsonl", ".srt", ".vtt", ".tsv", ".sqlite", ".lock")
NO_NAMES = (".", "..", "")
FORBIDDEN = str.maketrans(dict.fromkeys('/\\:*?"<>|' + "".join(map(chr, range(32))), "_"))


class Names:
    """Gives each video a name of its own: the `known` one, or an unused one.

    Names `as_is` are those that videos and their folders have, whatever other disks make of them.
    """

    def __init__(
        self, known: Mapping[str, str], taken: Iterable[str], *, as_is: bool = False
    ) -> None:
        self._as_is = as_is
        self._names = dict(known)
        self._taken = {_key(name) for name in (*known.values(), *taken, *NO_NAMES)}

    def __iter__(self) -> Iterator[str]:
        """The names that were given."""
        return iter(self._names.values())

    def __contains__(self, video: str) -> bool:
        """Whether a video has a name."""
        return video in self._names

    def of(self, video: str, below: str = "") -> str:
        """The name without suffix: the `plain` one, and a number where another video has it."""
        if video not in self._names:
            plain = name = self.plain(video, below)
            number = 1
            while _key(name) in self._taken:
                number += 1
                name = f"{plain}-{number}"
            self._names[video] = name
            self._taken.add(_key(name))
        return self._names[video]

    def plain(self, video: str, below: str = "") -> str:
        """The name of a video that no other one has: its own, in the folder `below`.

        That is a path with slashes.
        """
        folders = [part for part in below.split("/") if part]
        stem = Path(video).stem
        if not self._as_is:
            folders, stem = [_plain_folder(part) for part in folders], _plain(stem)
        return "/".join([*folders, stem])


def _key(name: str) -> str:
    """The key under which names collide on file systems that ignore case or normalise Unicode."""
    return unicodedata.normalize("NFC", name.casefold())


def _plain(stem: str) -> str:
    """A name that is one everywhere and leads nowhere else."""
    plain = stem.translate(FORBIDDEN).strip(" ")
    raw = os.fsencode(plain)
    if len(raw) <= LONGEST:
        return plain
    short = raw[: LONGEST - 9].decode("utf-8", "ignore")
    return f"{short}-{hashlib.sha256(raw).hexdigest()[:8]}"


def _plain_folder(part: str) -> str:
    """The name of a folder, which must not be that of a video's file or of the state's."""
    plain = _plain(part)
    return f"{plain}_" if plain in NO_NAMES or plain.lower().endswith(SUFFIXES) else plain


def is_name(name: str) -> bool:
    """Whether Names may have given it: it leads nowhere but to the output folder and below."""
    return all(map(_is_part, name.split("/")))


def _is_part(name: str) -> bool:
    sound = name not in NO_NAMES and not {"\0", os.sep, os.altsep} & {*name}
    return sound and not os.path.splitdrive(name)[0] and len(os.fsencode(name)) <= LONGEST_PART


def content(items: Iterable[Item], form: str) -> bytes | None:
    """The content of a video's file, or None without a result."""
    found = [item for item in items if not isinstance(item, Failure)]
    return encoded(format_whole(found, form, several=len(found) > 1)) if found else None
