"""Stage 6: questions and captions, learnt by the loop that `malmm train` runs."""

import random
from collections.abc import Iterator
from pathlib import Path

from language import texts_of
from reader import Videos, lengths

from malmm_cli.models import InstructBlip
from malmm_cli.settings import ASK
from malmm_cli.synthetic import Scene
from malmm_cli.train import Batch, Recipe, Sample, fit

VIDEOS_A_STEP, TEXTS_A_VIDEO = 8, 4


class Lessons:
    """A source of batches: a step's are drawn from its number alone, so a run can be resumed."""

    def __init__(self, videos: Videos) -> None:
        self.videos = videos

    def draw(self, step: int) -> Iterator[Batch]:
        """Videos seen at as many frames each, some texts about each side by side.

        Captions have a batch of their own: in one with answers, their words would drown these.
        """
        chance = random.Random(f"answers {step}")
        frames, _ = lengths(chance)
        scenes, _, features = self.videos.some(chance, VIDEOS_A_STEP, frames)
        told = [(scene, texts_of(scene, chance, TEXTS_A_VIDEO - 1)) for scene in scenes]
        yield Batch(features, tuple(_sample(scene, texts[0]) for scene, texts in told))
        asked = tuple(_sample(scene, text) for scene, texts in told for text in texts[1:])
        yield Batch(features, asked)


def _sample(scene: Scene, text: tuple[str, str]) -> Sample:
    prompt, answer = text
    return Sample(f"{scene.seed}", scene.seed, prompt, (answer,))


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
