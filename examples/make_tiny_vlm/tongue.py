"""Stages 2 and 4: the language model learns to answer from slots, of a perfect eye and of ours.

The bank is the real one: rows of frames go through it, and what it holds in the end is laid out in
the model's own prompt. Only what fills the rows differs.
"""

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from cells import frames_written, signed_scene
from language import hard_texts_of, texts_of
from shape import CELLS, meanings, new_model
from stages import end_with_parent, stage
from torch import Tensor
from training import Training
from transformers import DynamicCache

from malmm_cli.datasets.synthetic import COLOURS, Scene
from malmm_cli.datasets.synthetic.scene import SPARE_COLOUR
from malmm_cli.memory.bank import MemoryBank
from malmm_cli.memory.rule import Rule
from malmm_cli.memory.spans import Slots, spans
from malmm_cli.models.device import multiplies_bfloat16
from malmm_cli.models.instructblip.defaults import ASK
from malmm_cli.models.instructblip.defaults import CAPTION as WORDED
from malmm_cli.models.vlm.adapter import Tokens
from malmm_cli.models.vlm.defaults import CAPTION
from malmm_cli.models.vlm.model import VisionLanguage
from malmm_cli.models.vlm.prefix import laid_out

TONGUE = ("model.text_model.", "lm_head.")
RULES = ("mbc", "mbc", "ward", "uniform")
Seen = tuple[Scene, Tensor, Tensor]  # a scene, the seconds of its frames, their rows (T, P, C)
Draw = Callable[[random.Random, int, int], Seen]


def perfect(model: VisionLanguage) -> Draw:
    """Scenes as a perfect eye writes them, but for some noise."""
    meaning = meanings(model)

    def draw(chance: random.Random, most: int, frames: int) -> Seen:
        while True:
            scene, seconds = signed_scene(chance, most, (*COLOURS, SPARE_COLOUR))
            if frames / 3 <= len(seconds) <= 3 * frames:
                break
        seconds = torch.linspace(0, scene.seconds, frames) * (1 - 1e-6)
        rows = frames_written(scene, seconds, meaning)
        return scene, seconds, rows + torch.randn_like(rows) * chance.uniform(0, 0.1)

    return draw


def speak(work: Path, steps: int, threads: int) -> None:
    """Stage 2, in a process of its own."""
    end_with_parent()
    torch.set_num_threads(threads)
    model = new_model(work / "spoken")
    options = {"draw": perfect(model), "title": "tongue"}
    stage("tongue", model, TONGUE, train_tongue, work, steps, **options)


def lengths(chance: random.Random) -> tuple[int, int]:
    """How many frames to look at, and how many slots to remember them in."""
    frames = chance.choice((chance.randint(30, 60), 60, 60, 60, 100, chance.randint(100, 400)))
    return frames, chance.choice((8, 12, 16, 16, 16, 24))


def train_tongue(
    model: VisionLanguage,
    steps: int,
    log=print,
    kept: Path | None = None,
    *,
    draw: Draw,
    title: str,
    fluent: bool = False,
    batch: int = 12,
    rate: float = 2e-3,
) -> None:
    """Train the language model in place on `batch` scenes a step, some texts about each."""
    text = model.net.model.text_model
    tongue = torch.nn.ModuleDict({"text": text, "lm_head": model.net.lm_head})
    tongue.train().requires_grad_(True)
    text.embed_tokens.requires_grad_(False)
    training = Training(title, tongue.named_parameters(), steps, rate, log=log, kept=kept)
    for step, chance in training:
        most = 15 if fluent else 3 + min(12, int(20 * step / steps))
        frames, slots = lengths(chance)
        rule = Rule(chance.choice(RULES), merge="frame", fill=chance.choice(("mean", "keep")))
        seen = [draw(chance, most, frames) for _ in range(batch)]
        held = remembered([rows for *_, rows in seen], [s for _, s, _ in seen], slots, rule)
        embedding = model.net.get_input_embeddings()
        laid = [laid_out(model.adapter, model.texts, embedding, one).embeds for one in held]
        told = hard_texts_of if fluent else partial(texts_of, count=7)
        texts = [_asked(told(scene, chance)) for scene, *_ in seen]
        with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16()):
            loss, right = _loss(model, torch.cat(laid), texts)
        training.learn(loss, captions=right[0], answers=right[1])
    tongue.eval().requires_grad_(False)


def remembered(
    rows: list[Tensor], seconds: list[Tensor], slots: int, rule: Rule
) -> Iterator[Slots]:
    """What banks of so many slots, and the newest, hold of videos (T, P, C) at seconds (T,)."""
    every = torch.stack(rows)
    bank = MemoryBank(slots, rule)
    for index in range(every.shape[1] - 1):
        bank.read(every[:, index], lambda _: [])
        bank.append(lambda _: [])
    held, counts = bank.in_time()
    held = torch.cat([held, every[:, -1:]], 1)
    counts = torch.cat([counts, torch.ones(len(rows), 1, CELLS)], 1).long()
    for video, number, shown in zip(held, counts, seconds, strict=True):
        both = shown.double()[:, None].expand(-1, 2)
        yield Slots(video, number, spans(number, both))


def _asked(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Prompts as this family has them: a question alone, its own words for a caption."""
    before, after = ASK.prompt.split("{}")
    bare = [(prompt.removeprefix(before).removesuffix(after), told) for prompt, told in pairs]
    return [(CAPTION.prompt if prompt == WORDED.prompt else prompt, told) for prompt, told in bare]


def _loss(model: VisionLanguage, prefix: Tensor, texts: list[list[tuple[str, str]]]):
    """Cross-entropy of texts, and the shares of captions and answers that are all right.

    Prefixes (B, L, C) are read once, captions and answers go on from there; both weigh the same.
    """
    net, adapter, words = model.net, model.adapter, model.texts
    cache = DynamicCache()
    adapter.read(net, Tokens(prefix, torch.arange(prefix.shape[1])[None, None]), cache)
    captions = [(k, *pairs[0]) for k, pairs in enumerate(texts)]
    answers = [(k, *pair) for k, pairs in enumerate(texts) for pair in pairs[1:]]
    losses, right = [], []
    for group in (captions, answers):
        scenes, prompts, due = zip(*group, strict=True)
        asked = [words.ids(adapter.question(prompt)) for prompt in prompts]
        told = [[*words.ids(f" {answer}"), words.end] for answer in due]
        rows = [[*one, *other] for one, other in zip(asked, told, strict=True)]
        ids, mask = words.padded(rows, side="right")
        begins = torch.tensor([len(one) for one in asked])[:, None]
        place = torch.arange(1, ids.shape[1])
        answered = (place >= begins) & (mask[:, 1:] > 0)
        scene = torch.tensor(scenes)
        known = DynamicCache([(x.keys[scene], x.values[scene]) for x in cache.layers])
        positions = torch.arange(ids.shape[1])[None, None] + prefix.shape[1]
        hidden = adapter.read(net, Tokens(net.get_input_embeddings()(ids), positions), known)
        logits = net.lm_head(hidden[:, :-1][answered])
        labels = ids[:, 1:][answered]
        losses.append(torch.nn.functional.cross_entropy(logits, labels))
        wrong = torch.zeros(answered.shape)
        wrong[answered] = (logits.argmax(-1) != labels).float()
        right.append((wrong.sum(1) == 0).float().mean().item())
    return sum(losses) / 2, right
