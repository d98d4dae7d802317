"""Stages 1 to 3: the language model learns to answer from timelines made of words."""

import math
import random
from pathlib import Path

import torch
from model import WINDOWS, spoken, timeline, vocabulary, words_shown
from torch import Tensor
from training import Training
from transformers import DynamicCache

from malmm_cli.datasets.synthetic import (
    COLOURS,
    Scene,
    caption,
    intended_frames,
    questions,
    scenario,
)
from malmm_cli.datasets.synthetic.scene import SPARE_COLOUR
from malmm_cli.errors import UsageError
from malmm_cli.models.device import multiplies_bfloat16
from malmm_cli.models.instructblip.defaults import ASK, CAPTION
from malmm_cli.models.instructblip.model import InstructBlip

EASY = ("early", "middle", "late", "absent")
LATE = (
    (("ordered",), 3),
    (("compared", "counted"), 3),
    (("returning", "linked"), 3),
    (("detail",), 2),
    (EASY, 6),
)
HARD = 0.4  # of the scenes are of the hard world
SHORTEST = {"plain": 10, "hard": 30}  # seconds
FULLEST = {"plain": 15, "hard": 10}  # events


def random_scene(chance: random.Random, most: int, palette=COLOURS) -> tuple[Scene, Tensor]:
    """A scene of up to 10 min with up to `most` events, and the seconds that it is seen at."""
    world = "hard" if chance.random() < HARD else "plain"
    seconds = math.exp(chance.uniform(math.log(SHORTEST[world]), math.log(600)))
    frames = intended_frames(seconds, world)
    if chance.random() < 0.3:
        fewest = 16 if world == "plain" else frames * 3 // 4  # short events are not to be missed
        frames = chance.randint(min(fewest, frames), frames)
    colours = chance.sample(palette, len(COLOURS))
    for events in range(chance.randint(1, min(most, FULLEST[world])), 0, -1):
        number = chance.randrange(2**40)
        options = {"split": "train", "events": events, "colours": colours, "world": world}
        try:
            scene = scenario(number, seconds, **options)
        except UsageError:  # so many do not fit
            continue
        return scene, torch.linspace(0, seconds, frames)
    raise AssertionError("one event always fits")


def texts_of(scene: Scene, chance: random.Random, count: int) -> list[tuple[str, str]]:
    """Prompts and answers about a scene: a caption, and questions."""
    asked = questions(scene, count, seed=chance.randrange(2**30))
    return [
        (CAPTION.prompt, caption(scene)),
        *((ASK.prompt.replace("{}", one.question), one.answer) for one in asked),
    ]


def hard_texts_of(scene: Scene, chance: random.Random) -> list[tuple[str, str]]:
    """As `texts_of`, but half of the questions are of the kinds that are learnt last."""
    asked = questions(scene, 49, seed=chance.randrange(2**30))
    chance.shuffle(asked)
    picked = []
    for kinds, most in LATE:
        picked += [one for one in asked if one.kind in kinds][:most]
    return [
        (CAPTION.prompt, caption(scene)),
        *((ASK.prompt.replace("{}", one.question), one.answer) for one in picked),
    ]


def blurred(told: Tensor, chance: random.Random, most: float) -> Tensor:
    """A timeline (WINDOWS, words) as an imperfect reader tells it: windows run into each other."""
    wide = chance.uniform(0.0, most)
    places = torch.arange(WINDOWS, dtype=torch.float32)
    near = torch.softmax(-((places[:, None] - places) ** 2) / max(2 * wide**2, 1e-6), dim=1)
    return near @ told


def train_language(
    model: InstructBlip,
    steps: int,
    log=print,
    kept: Path | None = None,
    *,
    name: str = "language",
    fluent: bool = False,
    noise: float = 0.4,
    batch: int = 12,
    rate: float = 2e-3,
) -> None:
    """Train the language model in place on `batch` scenes a step, eight texts about each.

    Tokens get noise of up to so many times their own size.
    Scenes get fuller as it learns. One that is `fluent` goes on with full ones, and the words keep
    their embeddings: what the Q-Former learns to write stays readable.
    """
    columns, column = vocabulary(model)
    speaker = model.language_model.train().requires_grad_(True)
    speaker.get_input_embeddings().requires_grad_(not fluent)
    speaker.set_attn_implementation("eager")  # quicker than the fused one in bfloat16
    training = Training(name, speaker.named_parameters(), steps, rate, log=log, kept=kept)
    for step, chance in training:
        most = 15 if fluent else 3 + min(12, int(20 * step / steps))
        told, texts = [], []
        for _ in range(batch):
            scene, seconds = random_scene(chance, most, (*COLOURS, SPARE_COLOUR))
            blur = chance.choice((0.0, 0.5)) if fluent else 0.8
            perfect = timeline(words_shown(scene, seconds, column), column)
            told.append(blurred(perfect, chance, blur))
            texts.append(hard_texts_of(scene, chance) if fluent else texts_of(scene, chance, 7))
        loud = chance.uniform(0.0, noise)
        with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16()):
            loss, right = _loss(model, torch.stack(told), texts, columns, loud)
        training.learn(loss, captions=right[0], answers=right[1])
    speaker.set_attn_implementation("sdpa")
    speaker.eval().requires_grad_(False)


def _loss(model: InstructBlip, told: Tensor, texts, columns: list[int], noise: float):
    """Cross-entropy of texts, and the shares of captions and answers that are all right.

    The timelines (B, WINDOWS, words) are read once, captions and answers then go on from there.
    Both weigh the same: by words, long captions would drown short answers.
    """
    speaker = model.language_model
    embed = speaker.get_input_embeddings()
    rows = embed.weight[columns]
    tokens = spoken(told, rows)
    tokens = tokens + torch.randn_like(tokens) * rows.detach().pow(2).mean().sqrt() * noise
    known = speaker.model(inputs_embeds=tokens, use_cache=True).past_key_values
    captions = [(k, *pairs[0]) for k, pairs in enumerate(texts)]
    answers = [(k, *pair) for k, pairs in enumerate(texts) for pair in pairs[1:]]
    losses, right = [], []
    for group in (captions, answers):
        scenes, prompts, due = zip(*group, strict=True)
        ids, _, labels = model.texts.prompts_with_answers(prompts, due)
        scene = torch.tensor(scenes)
        read = DynamicCache([(layer.keys[scene], layer.values[scene]) for layer in known.layers])
        hidden = speaker.model(inputs_embeds=embed(ids), past_key_values=read).last_hidden_state
        told_at = labels[:, 1:] != -100
        logits, labels = speaker.lm_head(hidden[:, :-1][told_at]), labels[:, 1:][told_at]
        losses.append(torch.nn.functional.cross_entropy(logits, labels))
        wrong = told_at.float()
        wrong[told_at] = (logits.argmax(-1) != labels).float()
        right.append((wrong.sum(1) == 0).float().mean().item())
    return sum(losses) / 2, right
