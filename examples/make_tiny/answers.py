"""Stage 6: questions and captions, learnt by the loop that `malmm train` runs."""

import random
from collections.abc import Iterator
from pathlib import Path

from language import texts_of
from reader import Videos, lengths

from malmm_cli.models import InstructBlip
from malmm_cli.settings import ASK
from malmm_cli.train import Batch, Recipe, Sample, fit

VIDEOS_A_STEP, TEXTS_A_VIDEO = 8, 4


class Lessons:
    """A source of batches: a step's are drawn from its number alone, so a run can be resumed."""

    def __init__(self, videos: Videos) -> None:
        self.videos = videos

    def draw(self, step: int) -> Iterator[Batch]:
        """Videos seen at as many frames each, some texts about each side by side."""
        chance = random.Random(f"answers {step}")
        frames, _ = lengths(chance)
        scenes, _, features = self.videos.some(chance, VIDEOS_A_STEP, frames)
        samples = tuple(
            Sample(f"{scene.seed}", scene.seed, prompt, (answer,))
            for scene in scenes
            for prompt, answer in chance.sample(texts_of(scene, chance, 8), TEXTS_A_VIDEO)
        )
        yield Batch(features, samples)


def train_answers(model: InstructBlip, steps: int, log, kept: Path, *, videos: Videos) -> None:
    """Train in place what the paper trains, encoder and language model frozen."""
    recipe = Recipe(steps=steps, batch_size=32, together=TEXTS_A_VIDEO, lr=1e-4, clip=1.0)
    fit(
        model,
        Lessons(videos),
        recipe,
        ASK,
        kept,
        steps=steps,
        save_every=100,
        on_note=log,
    )
    model.requires_grad_(False).eval()
