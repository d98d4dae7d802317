"""Stage 5: the Q-Former learns to write timelines of what its memory holds."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from language import texts_of
from model import WINDOWS, timeline, vocabulary, words_shown
from pictures import PART, label, scene_of
from torch import Tensor
from training import Training, keep

from malmm_cli.models.instructblip.model import InstructBlip

VIDEOS_A_STEP = {"visual": 32, "both": 8}


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
    """Let every query begin by looking for shapes in its own window of time.

    What in a feature tells its place in the position table, and whether there is a shape, is found
    by least squares; the keys of every head keep that, and the queries ask for it.
    """
    table = model.position_embedding.weight
    features, shown, rows = [], [], []
    for _ in range(40):
        scenes, seconds, some = videos.some(chance, 4, 32)
        busy = torch.stack([_busy(s, t) for s, t in zip(scenes, seconds, strict=True)])
        features.append((some + table[:, None]).flatten(0, 2))
        shown.append(busy.flatten(0, 2))
        rows.append(torch.arange(WINDOWS).repeat(4)[:, None].expand(-1, some.shape[2]).flatten())
    x = torch.cat(features)
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    due = torch.cat([8 * torch.eye(WINDOWS)[torch.cat(rows)], 4 * torch.cat(shown)[:, None]], 1)
    found = torch.linalg.lstsq(x, due).solution[:-1].T  # (WINDOWS + 1, C)
    prompts = [chance.choice(texts_of(scene, chance, 3))[0] for scene in scenes]
    ids, _ = model.texts.instructions(prompts)
    for layer in model.qformer.encoder:
        if layer.crossattention is None:
            continue
        cross = layer.crossattention.attention
        size = cross.query.out_features // cross.heads
        u, scale, v = torch.linalg.svd(found[:-1], full_matrices=False)
        keep = size - 1
        keys = torch.cat([v[:keep], found[-1:]])
        asked = torch.cat([u[:, :keep] * scale[:keep], torch.ones(WINDOWS, 1)], 1) * size**0.5
        hidden = model.qformer.embeddings(model.query_tokens, ids)
        attention = model.qformer.encoder.layer[0].attention
        hidden = attention(hidden, *attention.attention.project(hidden), None)[:, :WINDOWS]
        seen = torch.cat([hidden, torch.ones(*hidden.shape[:2], 1)], 2).flatten(0, 1)
        solved = torch.linalg.lstsq(seen, asked.repeat(len(ids), 1), driver="gelsd").solution
        cross.key.weight.copy_(keys.repeat(cross.heads, 1))
        cross.key.bias.zero_()
        cross.query.weight.copy_(solved[:-1].T.repeat(cross.heads, 1))
        cross.query.bias.copy_(solved[-1].repeat(cross.heads))


def _busy(scene, seconds: Tensor) -> Tensor:
    """Where shapes are, (T, P) of 0 and 1; the first token stands for the whole picture."""
    grid = (torch.arange(8) + 0.5) / 8
    shown = torch.zeros(len(seconds), 65)
    for k, second in enumerate(seconds.tolist()):
        colour, _, _, x, y, wide, high, *_ = label(scene, second)
        if colour >= 0:
            near = ((grid[None] - x) / wide) ** 2 + ((grid[:, None] - y) / high) ** 2
            shown[k, 1:] = (near < 1).float().flatten()
    return shown


def lengths(chance: random.Random) -> tuple[int, int]:
    """How many frames to look at, and how many slots to remember them in."""
    frames = chance.choice((100, 60, 60, 60, chance.randint(16, 60)))
    return frames, 20 if frames > 60 or chance.random() < 0.2 else 10


def train_reader(
    model: InstructBlip,
    steps: int,
    log=print,
    kept: Path | None = None,
    *,
    videos: Videos,
    banks: str = "visual",
    rate: float = 1e-3,
) -> None:
    """Train in place what the paper trains, on VIDEOS_A_STEP videos a step.

    The loss is how far the tokens are from a perfect timeline, as a share of what is in it to tell,
    whatever the prompt. With the visual
    bank alone a step is as cheap as a single frame's, since nothing else comes from earlier frames;
    with both banks it goes on from there.
    """
    chance = random.Random(f"reader {banks}")
    columns, column = vocabulary(model)
    rows = model.language_model.get_input_embeddings().weight[columns].detach()
    if banks == "visual":
        point(model, videos, chance)
    parameters = model.trainable()
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    name = "reader" if banks == "visual" else f"reader {banks}"
    training = Training(name, parameters.items(), steps, rate, log=log, kept=kept)
    asked = [prompt for scene, _ in videos.scenes for prompt, _ in texts_of(scene, chance, 3)]
    for _, chance in training:
        frames, slots = lengths(chance)
        features, shown = videos.spliced(chance, VIDEOS_A_STEP[banks], frames, column)
        due = torch.stack([timeline(one, column) for one in shown]) @ rows
        prompts = [chance.choice(asked) for _ in shown]
        ids, mask = model.texts.instructions(prompts)
        tokens = model.remember_for_training(
            features, ids, mask, position_gradient="all", length=slots, banks=banks, total=frames
        )
        loss = (model.language_projection(tokens) - due).pow(2).mean() / due.var()
        training.learn(loss)
    for parameter in parameters.values():
        parameter.requires_grad_(False)
