"""Media files with random damage, all in one batch: each answered, or recorded with a reason?"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from helpers.media_files import write_video
from PIL import Image

from stress import QUICK, malmm

FORMATS = (
    ("mp4", {}),
    ("mkv", {}),
    ("avi", {"codec": "mpeg4"}),
    ("ts", {}),
    ("mov", {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
    ("webm", {"codec": "libvpx"}),
    ("mpg", {"codec": "mpeg1video"}),
    ("gif", {"codec": "gif", "pixel_format": "rgb8"}),
)


def sound_files(folder: Path) -> list[Path]:
    """One small file of each kind, undamaged."""
    folder.mkdir()
    made = [write_video(folder / f"sound.{kind}", 12, **how) for kind, how in FORMATS]
    for kind in ("png", "jpg", "webp"):
        Image.linear_gradient("L").save(folder / f"sound.{kind}")
        made.append(folder / f"sound.{kind}")
    return made


def mutate(raw: bytes, chance: random.Random) -> bytes:
    """Bits turned, stretches removed, repeated, blanked or swapped for noise, ends cut off."""
    data = bytearray(raw)
    for _ in range(chance.choice([1, 1, 2, 5, 20, 100])):
        if not data:
            break
        place = chance.randrange(len(data) if chance.random() < 0.5 else min(len(data), 256))
        length = chance.choice([1, 4, 4, 16, 256])
        match chance.randrange(7):
            case 0 | 1:
                data[place] ^= 1 << chance.randrange(8)
            case 2:
                del data[place : place + length]
            case 3:
                data[place:place] = data[place : place + length]
            case 4:
                data[place : place + length] = bytes(len(data[place : place + length]))
            case 5:
                data[place : place + length] = chance.randbytes(len(data[place : place + length]))
            case 6:
                data[place : place + 4] = chance.choice(
                    [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\0"]
                )
    return bytes(data[: chance.randrange(len(data) + 1)] if chance.random() < 0.1 else data)


def mutants(folder: Path, number: int, seed: int) -> Iterator[Path]:
    """Write so many damaged files."""
    chance = random.Random(seed)
    sound = sound_files(folder.with_name("sound"))
    folder.mkdir()
    for index in range(number):
        source = sound[index % len(sound)]
        path = folder / f"m{index:05}{source.suffix}"
        path.write_bytes(mutate(source.read_bytes(), chance))
        yield path


def run(number: int, seed: int) -> Counter[str]:
    """Answer them all; the kinds of failures, and how many were answered."""
    with tempfile.TemporaryDirectory() as place:
        names = {path.name for path in mutants(Path(place, "videos"), number, seed)}
        begun = time.monotonic()
        listed = "\n".join(f"videos/{name}" for name in sorted(names))
        Path(place, "list").write_text(listed)
        with Path(place, "list").open() as lines:
            command = ["batch", "-", "-o", "out.jsonl", *QUICK, "--timeout", "60"]
            batch = malmm(*command, "--max-memory", "4", cwd=place, stdin=lines)
            _, said = batch.communicate()
        assert batch.returncode in (0, 1), said
        assert "Traceback" not in said, said
        found = [json.loads(line) for line in Path(place, "out.jsonl").read_text().splitlines()]
        assert sorted(line["id"] for line in found) == sorted(f"videos/{name}" for name in names)
        kinds = Counter(line["error"]["kind"] if "error" in line else "answered" for line in found)
        for line in found:
            if "error" in line and line["error"]["kind"] in ("Unexpected", "Crashed", "Hung"):
                print(line["error"]["message"])
        took = time.monotonic() - begun
        print(f"{number} mutated files in {took:.0f} s, each with its line: {dict(kinds)}")
        return kinds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    run(given.files, given.seed)
