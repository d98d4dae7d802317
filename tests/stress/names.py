"""Videos and outputs of random names: each found, answered once, and nothing written elsewhere?"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from helpers.media_files import write_video

from malmm_cli.files.atomic import new_path
from malmm_cli.files.escapes import OBEYED
from malmm_cli.files.jsonl import open_lines
from malmm_cli.formats import open_whole
from stress import QUICK, malmm

PIECES = (
    *("a", "B", "0", " ", "  ", ".", "..", "-", "--help", "-o", "~", "#", "%", "%d", "%05d", "%%"),
    *("?", "*", "**", "[", "]", "[!a]", "{", "}", "'", '"', "`id`", "$(id)", "$HOME", ";", "&"),
    *("|", "<", ">", "\\", "\\n", ":", "file:", "https:", "@", "=", ",", "!", "^", "(", ")"),
    *("\n", "\r", "\t", "\x01", "\x07", "\x1b[2J", "\x1b]0;x\x07", "\x7f", "\x85", "\x9b2J"),
    *("\u202e", "\u2066", "\u2028", "\u200b", "\ufeff", "é", "e\u0301", "日本", "🎬", "İ", "ß"),
    *("con", "nul", "results", "results.jsonl", ".new", ".part", "x" * 60, "é" * 40),
    *(os.fsdecode(b"\xe9"), os.fsdecode(b"\xff\xfe"), os.fsdecode(b"\xc3")),
)
SUFFIXES = (".mp4", ".MP4", ".mkv", ".mov", ".avi")


def names(number: int, chance: random.Random) -> Iterator[str]:
    """So many names of files that a disk takes and a folder shows."""
    known = set()
    while len(known) < number:
        stem = "".join(chance.choices(PIECES, k=chance.randint(1, 8)))
        name = stem + chance.choice(SUFFIXES)
        if len(os.fsencode(name)) <= 255 and not name.startswith(".") and name not in known:
            known.add(name)
            yield name


def batch(place: Path, *inputs: str, listed: bytes = b"") -> str:
    """One run into out/; what it said."""
    (place / "list").write_bytes(listed)
    with (place / "list").open() as stdin:
        run = malmm("batch", *inputs, "-o", "out/", *QUICK, cwd=place, stdin=stdin)
        _, said = run.communicate()
    assert run.returncode == 0, said
    assert not OBEYED.search(said), said
    return said


def videos(place: Path, known: list[str]) -> None:
    """A batch of them as a folder, and once more as a list."""
    sound = write_video(place / "sound.mp4", 3).read_bytes()
    (place / "videos").mkdir()
    for name in known:
        (place / "videos" / name).write_bytes(sound)
    batch(place, "videos")
    lines = (place / "out" / "results.jsonl").read_bytes()
    found = [json.loads(line) for line in lines.splitlines()]
    ids = sorted(f"../videos/{name}" for name in known)
    assert sorted(line["id"] for line in found) == ids
    assert all("text" in line for line in found), [line.get("error") for line in found]
    written = {path.name for path in (place / "out").iterdir()}
    texts = {f"{line['name']}.txt" for line in found}
    assert len(texts) == len(known)
    assert written == texts | {f"results.{kind}" for kind in ("jsonl", "sqlite", "lock")}
    one_line = [name for name in known if not {"\n", "\r"} & set(name)]
    batch(place, "-", listed=b"".join(b"videos/%s\n" % os.fsencode(name) for name in one_line))
    assert (place / "out" / "results.jsonl").read_bytes() == lines, "all was done before"
    assert {path.name for path in place.iterdir()} == {"sound.mp4", "videos", "out", "list"}


def outputs(place: Path, known: list[str]) -> None:
    """Files of such names, written in each of the ways that files are."""
    place.mkdir()
    for name in known:
        path = place / name
        with open_whole(path) as file:
            file.write(b"1")
        with new_path(path) as new:
            new.write_bytes(b"2")
        with open_lines(path, append=True) as write:
            write("3\n")
        assert path.read_bytes() == b"23\n"
    assert sorted(path.name for path in place.iterdir()) == sorted(known)


def run(number: int, seed: int) -> None:
    """Fail where one of so many names does harm."""
    begun = time.monotonic()
    known = list(names(number, random.Random(seed)))
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "work").mkdir()
        videos(Path(place) / "work", known)
        outputs(Path(place) / "outputs", known)
        assert sorted(path.name for path in Path(place).iterdir()) == ["outputs", "work"]
    print(f"{number} names in {time.monotonic() - begun:.0f} s, each with its line and its file")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    run(given.names, given.seed)
