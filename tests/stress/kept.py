"""Memory files, caches and task files with random damage: each read, refused or made again?"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from helpers.media_files import write_video

import malmm_cli
from malmm_cli.bench.child import peak_mib
from malmm_cli.datasets.tasks import read_tasks
from malmm_cli.errors import MediaError, UsageError
from malmm_cli.models.instructblip.defaults import ASK
from malmm_cli.pipeline.feature_cache import FeatureCache
from malmm_cli.pipeline.memory_file import read_memory_file
from malmm_cli.pipeline.memory_header import is_memory_file
from malmm_cli.pipeline.remembering import remember
from malmm_cli.settings import changed
from stress.mutate import mutate

FEW = {"frames": 6, "memory": 3, "beams": 1, "max_new_tokens": 2}
REFUSED = ("BrokenMemory", "NotAVideo", "OtherVersion", "OtherModel")
MEMORY = 512  # MiB that the largest process may grow by: none of the files has a hundredth


def memory_files(model, video: Path, number: int, chance: random.Random) -> Counter[str]:
    """What is said about so many memory files."""
    path = video.with_name("a.memory")
    remember(video, model, changed(ASK, **FEW)).write(path)
    sound, kinds = path.read_bytes(), Counter[str]()
    for _ in range(number):
        path.write_bytes(mutate(sound, chance))
        if not is_memory_file(path):
            kinds["no memory file"] += 1
            continue
        try:
            read_memory_file(path, model)
            kinds["read"] += 1
        except MediaError as error:
            kinds[str(error.kind)] += 1
    assert kinds.keys() <= {"read", "no memory file", *REFUSED}, kinds
    return kinds


def caches(model, video: Path, number: int, chance: random.Random) -> Counter[str]:
    """Whether the features that a run gets are the same each time, made again where it must be."""
    cache = FeatureCache(video.with_name("features"))
    model = replace(model, cache=cache, chunk=3)

    def caption() -> object:
        return replace(malmm_cli.caption(video, model=model, **FEW), seconds={})

    whole, kinds = caption(), Counter[str]()
    for _ in range(number):
        if not cache.entries():  # the last was damaged where a header does not show it
            assert caption() == whole
        (entry,) = cache.entries()
        path = chance.choice(sorted(entry.path.iterdir()))
        sound = path.read_bytes()
        path.write_bytes(damaged := mutate(sound, chance))
        assert caption() == whole, "a damaged cache changed a result"
        again = not path.exists() or path.read_bytes() != damaged
        kinds["made again" if again else "read"] += 1
        if not again:
            path.write_bytes(sound)
    return kinds


def tasks(video: Path, number: int, chance: random.Random) -> Counter[str]:
    """How many files of tasks are refused, in a line that tells why."""
    path, kinds = video.with_name("tasks.jsonl"), Counter[str]()
    lines = [
        f'{{"id": "t{k}", "video": "{video.name}", "question": "where? é", "answer": "here"}}\n'
        for k in range(4)
    ]
    for _ in range(number):
        path.write_bytes(mutate("".join(lines).encode(), chance))
        try:
            read_tasks(path)
            kinds["read"] += 1
        except UsageError:
            kinds["refused"] += 1
    return kinds


def run(number: int, seed: int) -> dict[str, Counter[str]]:
    """Damage `number` files of each kind; what became of them."""
    chance = random.Random(seed)
    model = malmm_cli.load("tiny")
    begun = time.monotonic()
    before = peak_mib()
    with tempfile.TemporaryDirectory() as place:
        video = Path(write_video(Path(place, "video.mp4"), 12))
        found = {
            "memory files": memory_files(model, video, number, chance),
            "caches": caches(model, video, number, chance),
            "task files": tasks(video, number, chance),
        }
    grown = peak_mib() - before
    assert grown < MEMORY, f"{grown} MiB more"
    for kind, kinds in found.items():
        print(f"{number} mutated {kind}: {dict(kinds)}")
    print(f"{time.monotonic() - begun:.0f} s, {grown} MiB more at most")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    run(given.files, given.seed)
