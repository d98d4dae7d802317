"""Stage 1: the language model learns to answer from timelines made of words."""

import math
import random
import time

import torch
from model import WINDOWS, timeline
from torch import Tensor

from malmm_cli.errors import UsageError
from malmm_cli.models import InstructBlip
from malmm_cli.settings import ASK, CAPTION
from malmm_cli.synthetic import COLOURS, Scene, caption, intended_frames, questions, scenario
from malmm_cli.synthetic.scene import SPARE_COLOUR


def random_scene(chance: random.Random, most: int, palette=COLOURS) -> tuple[Scene, Tensor]:
    """A scene of 10 s to 10 min with up to `most` events, and the seconds it is seen at."""
    seconds = math.exp(chance.uniform(math.log(10), math.log(600)))
    frames = intended_frames(seconds)
    if chance.random() < 0.3:
        frames = chance.randint(16, frames)
    colours = chance.sample(palette, len(COLOURS))
    for events in range(chance.randint(1, most), 0, -1):
        try:
            number = chance.randrange(2**40)
            scene = scenario(number, seconds, split="train", events=events, colours=colours)
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
    """As `texts_of`, but most questions are of the kinds that are learnt last."""
    asked = questions(scene, 14, seed=chance.randrange(2**30))
    hard = [one for one in asked if one.kind in ("ordered", "compared", "counted")]
    easy = [one for one in asked if one not in hard]
    picked = [*hard, *chance.sample(easy, min(2, len(easy)))]
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
    *,
    fluent: bool = False,
    batch: int = 24,
    rate: float = 2e-3,
) -> None:
    """Train the language model in place on `batch` scenes a step, eight texts about each.

    Scenes get fuller as it learns. One that is `fluent` goes on with full ones, and the words keep
    their embeddings: what the Q-Former learns to write stays readable.
    """
    chance = random.Random(f"language {fluent}")
    number = {
        piece.removeprefix("▁"): i
        for piece, i in model.texts.language.get_vocab().items()
        if piece[0] == "▁"
    }
    columns = sorted(number.values())
    column = {name: columns.index(i) for name, i in number.items()}
    speaker = model.language_model.train().requires_grad_(True)
    speaker.get_input_embeddings().requires_grad_(not fluent)
    optimizer, schedule = recipe([p for p in speaker.parameters() if p.requires_grad], rate, steps)
    begun, seen = time.time(), []
    for step in range(steps):
        most = 15 if fluent else 3 + min(12, int(20 * step / steps))
        told, texts = [], []
        for _ in range(batch):
            scene, seconds = random_scene(chance, most, (*COLOURS, SPARE_COLOUR))
            told.append(blurred(timeline(scene, seconds, column), chance, 0.5 if fluent else 0.8))
            texts.append(hard_texts_of(scene, chance) if fluent else texts_of(scene, chance, 7))
        noise = chance.uniform(0.0, 0.2 if fluent else 0.4)
        loss, right = _loss(model, torch.stack(told), texts, columns, noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(speaker.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        seen.append((loss.item(), *right))
        if (step + 1) % 25 == 0:
            mean, captions, answers = torch.tensor(seen[-25:]).mean(0).tolist()
            log(
                f"language {step + 1}/{steps}: loss {mean:.3f}, answers {answers:.1%}, "
                f"captions {captions:.1%}, {time.time() - begun:.0f} s"
            )
    speaker.eval().requires_grad_(False)


def recipe(parameters, rate: float, steps: int):
    """AdamW, a short warm-up, and a cosine down to a fiftieth of the rate."""
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))

    def share(step: int) -> float:
        return min(1, (step + 1) / 100) * (0.51 + 0.49 * math.cos(math.pi * step / steps))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def _loss(model, told, texts, columns, noise):
    """Cross-entropy of all texts, and the shares of captions and answers that are all right.

    The texts about a scene stand behind its timeline (B, WINDOWS, words) in one row, each at the
    positions it would have alone, and none sees another.
    """
    ids, labels, place, part = _packed(model.texts, texts)
    embed = model.language_model.get_input_embeddings()
    rows = embed.weight[columns]
    spoken = told @ rows
    spoken = spoken + torch.randn_like(spoken) * rows.detach().pow(2).mean().sqrt() * noise
    begin = torch.arange(WINDOWS).expand(len(ids), -1)
    place = torch.cat([begin, place + WINDOWS], 1)
    part = torch.cat([torch.zeros_like(begin), part], 1)
    may = (part[:, :, None] == part[:, None]) | (part[:, None] == 0)
    may &= place[:, :, None] >= place[:, None]
    hidden = model.language_model.model(
        inputs_embeds=torch.cat([spoken, embed(ids)], 1),
        attention_mask=may[:, None],
        position_ids=place,
    ).last_hidden_state[:, WINDOWS:-1]
    due = labels[:, 1:]
    told_at = due != -100
    logits = model.language_model.lm_head(hidden[told_at])
    loss = torch.nn.functional.cross_entropy(logits, due[told_at])
    wrong = torch.zeros(len(ids), int(part[part < 99].max()) + 1)
    where = part[:, WINDOWS + 1 :][told_at]
    row = torch.arange(len(ids))[:, None].expand_as(due)[told_at]
    wrong.index_put_((row, where), (logits.argmax(-1) != due[told_at]).float(), accumulate=True)
    right = (wrong == 0).float()
    asked = torch.tensor([len(of_scene) for of_scene in texts])
    answers = (right[:, 2:].sum() - (right.shape[1] - 1 - asked).sum()) / (asked - 1).sum()
    return loss, (right[:, 1].mean().item(), answers.item())


def _packed(texts, of_scenes):
    """Ids, labels, positions and number of the text, from 1, of every token; rows padded."""
    rows = []
    for pairs in of_scenes:
        ids, labels, place, part = [], [], [], []
        for k, (prompt, answer) in enumerate(pairs, start=1):
            known = _tokens(texts, prompt, answer)
            ids += known[0]
            labels += known[1]
            place += range(len(known[0]))
            part += [k] * len(known[0])
        rows.append((ids, labels, place, part))
    return [
        torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row[k]) for row in rows], batch_first=True, padding_value=padding
        )
        for k, padding in enumerate((texts.padding, -100, 0, 99))
    ]


def _tokens(texts, prompt, answer):
    ids, _, labels = texts.prompts_with_answers([prompt], [answer])
    return ids[0].tolist(), labels[0].tolist()
