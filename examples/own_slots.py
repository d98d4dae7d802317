"""Which events still have a slot of their own? The memory bank without a model, in the hard world.

    python examples/own_slots.py

Draws videos of `malmm synth --world hard`, reads them in one frame a second, makes the mean colour
of each patch of 8 x 8 pixels its feature, and lets a bank of M slots observe them: what the newest
frame finds there, and that frame itself, are M + 1 entries for each patch. With `--worlds 10
--seconds 60,200,600 --videos 4` it prints the table of docs/worlds.md, in some minutes.

An event has a slot of its own if the memory still shows it at one moment: at half or more of the
patches that its shape then covers, there is an entry more than half of which, by weight, comes
from frames in which this event covers the patch. A shape covers a patch where it changes the mean
colour by more than 20 of 255 steps. Events that cover no patch in any frame read are not counted.

Weights are exact: a bank merges the projections of an entry with the weights of the entry, so what
is projected here is which event covers the patch.
"""

import argparse
import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from malmm_cli.datasets.synthetic import COLOURS, Scene, picture
from malmm_cli.datasets.synthetic.hard import Difficulty, arrange, intended_frames
from malmm_cli.memory.bank import MemoryBank
from malmm_cli.memory.rule import Rule

SIZE, PATCH = (96, 72), 8  # pixels
COVERED = 20  # steps of 255
LENGTHS = (3, 5, 10, 20)

WORLDS = {
    "as `malmm synth` has it": Difficulty(),
    "events of 1 to 2 frames": Difficulty(steps=(1.0, 2.0)),
    "events of 8 to 12 frames": Difficulty(steps=(8.0, 12.0)),
    "events one by one": Difficulty(burst=(1, 1)),
    "bursts of 5": Difficulty(burst=(5, 5), events=(5, 10)),
    "no gaps in bursts": Difficulty(gap=(0.0, 0.0)),
    "no drift, steady light": Difficulty(drift=0.0, light=0.0),
    "full drift, light × 0.6 to 1.4": Difficulty(drift=1.0, light=0.4),
    "2 or 3 events": Difficulty(events=(2, 3)),
    "9 to 16 events": Difficulty(events=(9, 16)),
}
RULES = {
    "likeness": [Rule()],
    "whole frames": [Rule(merge="frame")],
    "plain mean": [Rule(mean="plain")],
    "random": [Rule("random", seed=seed) for seed in range(3)],
    "random frames": [Rule("random", merge="frame", seed=seed) for seed in range(3)],
    "even": [Rule("uniform")],
    "newest": [Rule("fifo")],
}


def colours(pixels: np.ndarray) -> Tensor:
    """Return the mean colour (P, 3) of each patch, 0 to 255."""
    image = torch.from_numpy(pixels.astype(np.float32))
    cells = image.unflatten(0, (-1, PATCH)).unflatten(2, (-1, PATCH))
    return cells.mean(dim=(1, 3)).flatten(0, 1)


def watched(scene: Scene) -> tuple[Tensor, Tensor]:
    """Return features (T, P, 3), and which event covers a patch when, (T, P, E)."""
    frames = intended_frames(scene.seconds)
    seconds = np.linspace(0, scene.seconds, frames, endpoint=False).tolist()
    seen = torch.stack([colours(picture(scene, second, SIZE)) for second in seconds])
    covered = torch.zeros(*seen.shape[:2], len(scene.events))
    empty = replace(scene, events=())
    for number, event in enumerate(scene.events):
        for k, second in enumerate(seconds):
            if event.start <= second < event.end:
                change = (seen[k] - colours(picture(empty, second, SIZE))).abs().amax(dim=-1)
                covered[k, :, number] = (change > COVERED).float()
    return seen, covered


def remembered(features: Tensor, covered: Tensor, length: int, rule: Rule) -> Tensor:
    """Return the share (B, M + 1, P, E) of each event in each entry, of videos (B, T, P, …)."""
    frames = features.shape[1]
    bank = MemoryBank(min(length, frames - 1), replace(rule, total=frames))
    for k in range(frames):
        shares = bank.read(features[:, k], lambda _, k=k: [covered[:, k]])[0]
        if k < frames - 1:
            bank.append(lambda rows: [])
    return shares.unflatten(1, (-1, features.shape[2]))


def own_slots(shares: Tensor, covered: Tensor) -> Tensor:
    """Return which events (B, E) have a slot of their own, by their shares and what they cover."""
    own = (shares > 0.5).any(dim=1).float()  # (B, P, E)
    patches = covered.sum(dim=2)  # (B, T, E)
    kept = (covered * own[:, None]).sum(dim=2)
    return ((patches > 0) & (kept >= patches / 2)).any(dim=1)


def rows(worlds: dict[str, Difficulty], seconds: int, videos: int) -> Iterator[list[str]]:
    """Yield a row for each world and length of the bank; all videos are remembered side by side."""
    seen, coverings = [], []
    for difficulty in worlds.values():
        for seed in range(videos):
            chance = random.Random(seed)
            scene = arrange(chance, seed, seconds, "test", None, COLOURS, difficulty)
            features, covered = watched(scene)
            seen.append(features)
            coverings.append(covered)
    most = max(covered.shape[2] for covered in coverings)
    covered = torch.stack([F.pad(c, (0, most - c.shape[2])) for c in coverings])
    features = torch.stack(seen)
    events = covered.flatten(1, 2).any(dim=1).view(len(worlds), -1).sum(dim=1)
    for length in LENGTHS:
        found = []
        for same in RULES.values():
            own = [own_slots(remembered(features, covered, length, r), covered) for r in same]
            found.append(torch.stack(own).float().mean(dim=0).view(len(worlds), -1).sum(dim=1))
        for name, number, kept in zip(worlds, events, torch.stack(found, dim=1), strict=True):
            cells = [f"{share:.0%}" for share in (kept / number).tolist()]
            yield [name, f"{seconds} s", str(int(number)), str(length), *cells]


def main() -> None:
    parser = argparse.ArgumentParser(description="Which events have a slot of their own?")
    parser.add_argument("--videos", type=int, default=2, help="videos of each world and length")
    parser.add_argument("--seconds", default="60", help="lengths of videos")
    parser.add_argument("--worlds", type=int, default=1, help="how many of the worlds")
    options = parser.parse_args()
    torch.set_num_threads(1)
    worlds = dict(list(WORLDS.items())[: options.worlds])
    lengths = [int(seconds) for seconds in options.seconds.split(",")]
    table = [row for seconds in lengths for row in rows(worlds, seconds, options.videos)]
    head = ["world", "length", "events", "M", *RULES]
    print("| " + " | ".join(head) + " |")
    print("|---" + "|---:" * (len(head) - 1) + "|")
    for row in sorted(table, key=lambda row: list(worlds).index(row[0])):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
