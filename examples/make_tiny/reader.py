"""Stage 7: the Q-Former learns to write timelines of what its memory holds."""

import random
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from language import texts_of
from looks import Style
from model import TOKENS, WINDOWS, spoken, timeline, vocabulary, words_shown
from pictures import PART, label, scene_of
from torch import Tensor
from training import Training, keep

from malmm_cli.models.instructblip.model import InstructBlip

# what of a model a reader is
READING = ("qformer", "query_tokens", "position_embedding", "language_projection")


@dataclass(frozen=True)
class Lesson:
    """What a reader learns with: `videos` a step, of 60 frames or fewer; of more frames, fewer.

    Videos have one of the `usual` numbers of frames, or from `shortest` to 60; those of a lesson
    with a `longest` above 100 have up to that now and then. With `pointed` every query begins by
    looking for shapes in its own windows of time, see `point`.
    """

    name: str
    banks: str
    rate: float = 1e-3
    videos: int = 8
    usual: tuple[int, ...] = (100, 60, 60, 60)
    shortest: int = 16
    longest: int = 100
    pointed: bool = False


READER = Lesson("reader", "visual", videos=32, longest=600, pointed=True)
BOTH = Lesson("reader both", "both", rate=6e-4)


class Videos:
    """Features of all videos (float16), with the scenes they show."""

    def __init__(self, features: list[Tensor], numbers: list[int]) -> None:
        self.features = features
        self.scenes = [scene_of(number) for number in numbers]

    @classmethod
    def encoded(cls, model: InstructBlip, folder: Path, cache: Path, log=print, seed: int = 1):
        """Encode the pictures in folder; features are kept in cache."""
        cache.mkdir(parents=True, exist_ok=True)
        features: list[Tensor] = []
        numbers: list[int] = []
        for path in sorted(folder.glob("*.npz")):
            stored = cache / f"{path.stem}.pt"
            with np.load(path) as drawn:
                counts = drawn["counts"].tolist()
                if not stored.exists():
                    frames = torch.from_numpy(drawn["frames"])
                    told = torch.cat(
                        [model.encode_frames(chunk).half() for chunk in frames.split(64)]
                    )
                    keep(told, stored)
                    log(f"features {path.stem}")
            features += torch.load(stored, weights_only=True).split(counts)
            numbers += [seed * 1_000_000 + int(path.stem) * PART + k for k in range(PART)]
        return cls(features, numbers)

    @property
    def longest(self) -> int:
        """How many frames the longest of them has."""
        return max(map(len, self.features))

    def some(self, chance: random.Random, count: int, frames: int):
        """So many videos with at least so many frames: scenes, seconds, features (V, T, P, C)."""
        fitting = [k for k, one in enumerate(self.features) if len(one) >= frames]
        scenes, seconds, features = [], [], []
        for k in chance.sample(fitting, count):
            scene, times = self.scenes[k]
            picked = torch.linspace(0, len(times) - 1, frames).round().long()
            scenes.append(scene)
            seconds.append(times[picked] * (1 - 1e-6))
            features.append(self.features[k][picked])
        return scenes, seconds, torch.stack(features).float()

    def spliced(self, chance: random.Random, count: int, frames: int, number: dict[str, int]):
        """So many new videos, each of up to four pieces of others, one after the other.

        Features (V, T, P, C) and the words that are true of each frame (V, T, words). A frame's
        features know nothing of its place in time, so any order is as good as the one drawn.
        """
        features, shown = [], []
        for _ in range(count):
            cuts = sorted(chance.choices(range(frames + 1), k=chance.randrange(4)))
            for begin, end in pairwise([0, *cuts, frames]):
                fitting = [k for k, one in enumerate(self.features) if len(one) >= end - begin]
                k = chance.choice(fitting)
                at = chance.randint(0, len(self.features[k]) - (end - begin))
                piece = slice(at, at + end - begin)
                scene, times = self.scenes[k]
                features.append(self.features[k][piece])
                shown.append(words_shown(scene, times[piece] * (1 - 1e-6), number))
        shape = (count, frames)
        return torch.cat(features).float().unflatten(0, shape), torch.cat(shown).unflatten(0, shape)


@torch.no_grad()
def point(model: InstructBlip, videos: Videos, chance: random.Random) -> None:
    """Let every query begin by looking for shapes in its own windows of time.

    What in a feature tells its place in the position table, and whether there is a shape, is found
    by least squares; the keys of every head keep that, and the queries ask for it. The even heads
    look for the first window of a token, the odd ones for the second.
    """
    found, prompts = _telling(model, videos, chance)
    ids, _ = model.texts.instructions(prompts)
    for layer in model.qformer.encoder:
        if layer.crossattention is None:
            continue
        cross = layer.crossattention.attention
        size = cross.query.out_features // cross.heads
        keys, asked = [], []
        for head in range(cross.heads):
            u, scale, v = torch.linalg.svd(found[head % 2 : WINDOWS : 2], full_matrices=False)
            keep = size - 1
            keys += [v[:keep], found[-1:]]
            asked += [u[:, :keep] * scale[:keep], torch.ones(TOKENS, 1)]
        hidden = model.qformer.embeddings(model.query_tokens, ids)
        attention = model.qformer.encoder.layer[0].attention
        hidden = attention(hidden, *attention.attention.project(hidden), None)[:, :TOKENS]
        seen = torch.cat([hidden, torch.ones(*hidden.shape[:2], 1)], 2).flatten(0, 1)
        due = torch.cat(asked, 1).repeat(len(ids), 1) * size**0.5
        solved = torch.linalg.lstsq(seen, due, driver="gelsd").solution
        cross.key.weight.copy_(torch.cat(keys))
        cross.key.bias.zero_()
        cross.query.weight.copy_(solved[:-1].T)
        cross.query.bias.copy_(solved[-1])


def _telling(model: InstructBlip, videos: Videos, chance: random.Random):
    """What tells each window, and where shapes are, (WINDOWS + 1, C); and some prompts."""
    table, count = model.position_embedding.weight, 16  # every video has so many frames
    width = table.shape[1] + 1
    square, mixed = torch.zeros(width, width), torch.zeros(width, WINDOWS + 1)
    for _ in range(320):
        scenes, seconds, some = videos.some(chance, 4, count)
        busy = torch.stack([_busy(s, t) for s, t in zip(scenes, seconds, strict=True)])
        rows = torch.tensor(chance.sample(range(WINDOWS), count))
        features = (some + table[rows, None]).flatten(0, 2)
        x = torch.cat([features, torch.ones(len(features), 1)], 1)
        told = torch.eye(WINDOWS)[rows].repeat(4, 1).repeat_interleave(some.shape[2], 0)
        due = torch.cat([8 * told, 4 * busy.view(-1, 1)], 1)
        square, mixed = square + x.T @ x, mixed + x.T @ due
    found = torch.linalg.lstsq(square, mixed, driver="gelsd").solution[:-1].T
    return found, [chance.choice(texts_of(scene, chance, 3))[0] for scene in scenes]


def _busy(scene, seconds: Tensor) -> Tensor:
    """Where shapes are, (T, P) of 0 and 1; the first token stands for the whole picture."""
    grid = (torch.arange(8) + 0.5) / 8
    shown = torch.zeros(len(seconds), 65)
    for k, second in enumerate(seconds.tolist()):
        colour, _, _, x, y, wide, high, *_ = label(scene, second, Style())
        if colour >= 0:
            near = ((grid[None] - x) / wide) ** 2 + ((grid[:, None] - y) / high) ** 2
            shown[k, 1:] = (near < 1).float().flatten()
    return shown


def lengths(chance: random.Random, lesson: Lesson) -> tuple[int, int]:
    """How many frames to look at, and how many slots to remember them in."""
    frames = chance.choice((*lesson.usual, chance.randint(lesson.shortest, 60)))
    if lesson.longest > 100 and chance.random() < 0.3:
        frames = chance.randint(100, lesson.longest)
    return frames, 20 if frames > 60 or chance.random() < 0.3 else 10


def train_reader(
    model: InstructBlip,
    steps: int,
    log=print,
    kept: Path | None = None,
    *,
    videos: Videos,
    lesson: Lesson,
) -> None:
    """Train in place what the paper trains.

    The loss is how far the tokens are from a perfect timeline, as a share of what is in it to tell,
    whatever the prompt. With the visual bank alone a step is as cheap as a single frame's, since
    nothing else comes from earlier frames.
    """
    chance = random.Random(f"reader {lesson.banks}")
    columns, column = vocabulary(model)
    rows = model.language_model.get_input_embeddings().weight[columns].detach()
    if lesson.pointed:
        point(model, videos, chance)
    parameters = model.trainable()
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    training = Training(lesson.name, parameters.items(), steps, lesson.rate, log=log, kept=kept)
    asked = [prompt for scene, _ in videos.scenes for prompt, _ in texts_of(scene, chance, 3)]
    for _, chance in training:
        frames, slots = lengths(chance, lesson)
        frames = min(frames, videos.longest)
        count = max(4, lesson.videos * 60 // max(frames, 60))
        features, shown = videos.spliced(chance, count, frames, column)
        due = spoken(torch.stack([timeline(one, column) for one in shown]), rows)
        prompts = [chance.choice(asked) for _ in shown]
        ids, mask = model.texts.instructions(prompts)
        tokens = model.remember_for_training(
            features,
            ids,
            mask,
            position_gradient="all",
            length=slots,
            banks=lesson.banks,
            total=frames,
        )
        loss = (model.language_projection(tokens) - due).pow(2).mean() / due.var()
        training.learn(loss)
    for parameter in parameters.values():
        parameter.requires_grad_(False)
