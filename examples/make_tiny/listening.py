"""Stage 6: the language model learns to read what the Q-Former really writes."""

import random
from pathlib import Path

import torch
from language import hard_texts_of, texts_of, told_of
from reader import BOTH, Videos, lengths
from torch import Tensor
from training import Training, keep

from malmm_cli.datasets.synthetic import Scene
from malmm_cli.models.device import multiplies_bfloat16
from malmm_cli.models.instructblip.model import InstructBlip

ROUNDS, TOGETHER = 64, 32  # of videos that are remembered once for all steps
Heard = list[tuple[Scene, Tensor]]  # videos and their tokens (TOKENS, C) for the language model


def train_listening(
    model: InstructBlip,
    steps: int,
    log=print,
    kept: Path | None = None,
    *,
    videos: Videos,
    batch: int = 12,
    rate: float = 5e-4,
) -> None:
    """Train the language model in place on videos as they are remembered, some texts about each.

    The words keep their embeddings, which the Q-Former has learnt to write.
    """
    every = heard(model, videos, kept and kept.with_name("heard.pt"), log)
    speaker = model.language_model.train().requires_grad_(True)
    speaker.get_input_embeddings().requires_grad_(False)
    speaker.set_attn_implementation("eager")  # quicker than the fused one in bfloat16
    named = speaker.named_parameters()
    training = Training("listening", named, steps, rate, log=log, kept=kept)
    for _, chance in training:
        scenes, tokens = zip(*chance.sample(every, batch), strict=True)
        texts = [
            hard_texts_of(scene, chance) if chance.random() < 0.5 else texts_of(scene, chance, 7)
            for scene in scenes
        ]
        given = torch.stack(tokens).float()
        with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16()):
            loss, right = told_of(model, given, texts)
        training.learn(loss, captions=right[0], answers=right[1])
    speaker.set_attn_implementation("sdpa")
    speaker.eval().requires_grad_(False)


@torch.no_grad()
def heard(model: InstructBlip, videos: Videos, path: Path | None, log=print) -> Heard:
    """Remember ROUNDS times TOGETHER videos, of as many frames each round; kept in path."""
    chance = random.Random("heard")
    stored = torch.load(path, weights_only=True) if path and path.exists() else []
    found: Heard = []
    for number in range(ROUNDS):
        frames, slots = lengths(chance, BOTH.longest)
        frames = min(frames, videos.longest)
        scenes, _, features = videos.some(chance, TOGETHER, frames)
        prompts = [chance.choice(texts_of(scene, chance, 3))[0] for scene in scenes]
        if number == len(stored):
            ids, mask = model.texts.instructions(prompts)
            options = {"position_gradient": "all", "length": slots, "total": frames}
            tokens = model.remember_for_training(features, ids, mask, **options)
            stored.append(model.language_projection(tokens).half())
            if len(stored) % 10 == 0 or len(stored) == ROUNDS:
                log(f"heard {len(stored)}/{ROUNDS}")
                if path:
                    keep(stored, path)
        found += zip(scenes, stored[number], strict=True)
    return found
