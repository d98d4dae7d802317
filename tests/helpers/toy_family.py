"""A small family that is as unlike InstructBLIP as the protocol allows.

A feature is a pair of frames and depends on one frame on either side; its positions follow the
shape of the video. There is a rider, no query bank, and whole slots are merged. The context has
words of the prompt before the slots, so that prompts have contexts of several lengths.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from malmm_cli.errors import CapacityError
from malmm_cli.memory.rule import Rule
from malmm_cli.memory.spans import Slots, feature_seconds, spans
from malmm_cli.models.base import Context, Features, Spec
from malmm_cli.pipeline.model import Model
from malmm_cli.settings import Decoding, MemoryOptions, Sampling, Settings

SIDE, WIDTH, DEEP = 4, 6, 3
LEXICON = ["red", "circle", "many", "moves", "left", "star"]
HOW = {
    "memory": MemoryOptions(4, banks="visual", merge="frame"),
    "decoding": Decoding(max_new_tokens=4, beams=1),
    "sampling": Sampling(frames=8),
}
SPEC = Spec(
    "toy",
    patches=None,
    width=WIDTH,
    context=64,
    policies=("mbc", "fifo", "average", "last", "random", "uniform", "ward"),
    banks=("visual",),
    merges=("frame",),
    means=("weighted", "plain"),
    fills=("mean", "keep"),
    defaults={"caption": Settings("what moves?", **HOW), "ask": Settings("{}", **HOW)},
    parts={"encoder": ("",), "reader": ("",)},
    heads=1,
    frames_per_feature=2,
    halo=1,
    riders={"deep": DEEP},
    extends=True,
)


def toy_model(chunk: int = 4, **changes: Any) -> Model:
    """Return it as the pipeline gets a model."""
    fields = {"name": "toy", "revision": None, "device": "cpu", "dtype": "float32"}
    return ToyModel(Toy(), **fields, chunk=chunk, **changes)


class ToyModel(Model):
    """A model without a folder."""

    fingerprints = SimpleNamespace(encoder="encoder", reader="reader", weights="weights")


@dataclass
class Slot:
    """`row` (P, C) and `rider` (P, W), means of `count` features."""

    row: Tensor
    rider: Tensor
    count: int = 1


def merged(a: Slot, b: Slot, rule: Rule | None = None) -> Slot:
    counts = torch.tensor(float(a.count)), torch.tensor(float(b.count))
    _, share = (rule or Rule()).merged(a.row, counts[0], b.row, counts[1])
    rows = torch.lerp(a.row, b.row, share), torch.lerp(a.rider, b.rider, share)
    return Slot(*rows, a.count + b.count)


@dataclass
class ToyMemory:
    """The slots of earlier features and the newest one; `seconds` are those of all observed.

    So many are there in `total`, if that is known.
    """

    prompts: tuple[str, ...]
    options: MemoryOptions
    total: int | None = None
    frames: int = 0
    bank: list[Slot] = field(default_factory=list)
    newest: Slot | None = None
    seconds: list[Tensor] = field(default_factory=list)

    def observe(self, slot: Slot) -> None:
        """Store the newest slot and hold this one back."""
        self.frames += 1
        if self.newest is not None:
            self.store(self.newest)
        self.newest = slot

    def store(self, slot: Slot) -> None:
        if self.options.policy == "last":
            return
        self.bank.append(slot)
        if self.options.policy == "average":
            self.merge(0) if len(self.bank) > 1 else None
        elif 0 < self.options.length < len(self.bank):
            self.compress()

    def compress(self) -> None:
        options = self.options
        if options.policy == "fifo":
            del self.bank[0]
            return
        how = (options.policy, options.mean, options.merge, options.seed, self.total, options.fill)
        rule = Rule(*how)
        if rule.compares:
            rows = torch.stack([slot.row for slot in self.bank])[None]
            counts = torch.tensor([float(slot.count) for slot in self.bank])[None, :, None]
            left = rule.chosen(rule.similarity(rows[:, :-1], rows[:, 1:]), counts)
        else:
            left = rule.pair(torch.tensor([float(slot.count) for slot in self.bank])[None, :, None])
        self.merge(int(left[0, 0]), rule)

    def merge(self, left: int, rule: Rule | None = None) -> None:
        self.bank[left : left + 2] = [merged(*self.bank[left : left + 2], rule)]

    def everything(self) -> list[Slot]:
        """What the language model is given."""
        assert self.newest is not None
        slots = [*self.bank, self.newest]
        if self.options.policy != "average" or not self.bank:
            return slots
        return [merged(*slots)]

    def slots(self) -> Slots:
        assert self.newest is not None
        held = [*self.bank, self.newest] if self.options.keeps_visual else [self.newest]
        rows = torch.stack([slot.row for slot in held])
        counts = torch.tensor([slot.count for slot in held])[:, None].repeat(1, rows.shape[1])
        riders = {"deep": torch.stack([slot.rider for slot in held])}
        return Slots(rows, counts, self.spans(counts), riders)

    def spans(self, counts: Tensor) -> Tensor:
        return spans(counts, torch.cat(self.seconds))

    def copy(self) -> ToyMemory:
        return copy.deepcopy(self)


class Toy:
    """The model; its weights are made up."""

    device = answers_on = torch.device("cpu")
    dtype = torch.float32
    spec = SPEC

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        inputs = 4 * SIDE * SIDE * 3  # of a pair of frames and one on either side
        self.rows = torch.randn(inputs, WIDTH, generator=generator) / 8
        self.deep = torch.randn(inputs, DEEP, generator=generator) / 8

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        return (2 * SIDE, SIDE) if width > height else (SIDE, SIDE)

    def encode(self, frames: Tensor, seconds: Tensor) -> Features:
        cells = frames.unflatten(1, (-1, SIDE)).unflatten(3, (-1, SIDE))  # (T, h, 4, w, 4, 3)
        cells = cells.transpose(2, 3).flatten(3).flatten(1, 2) / 255 - 0.5  # (T, P, 48)
        around = torch.cat([cells[:1], cells, cells[-1:]])
        parts = [self.picture(around[k : k + len(cells) : 2], k) for k in range(4)]
        inputs = torch.cat(parts, dim=-1)
        return Features(inputs @ self.rows, seconds.view(-1, 2), {"deep": inputs @ self.deep})

    def picture(self, cells: Tensor, index: int) -> Tensor:
        """Return one of the four pictures that a feature is made of."""
        return cells

    def check(
        self, prompts: Sequence[str], options: MemoryOptions, decoding: Decoding, features: int
    ) -> None:
        slots = features if options.gives_every_frame else min(options.length + 1, features)
        words = max(len(prompt.split()) for prompt in prompts) if prompts else 0
        length = words + 2 * slots + decoding.max_new_tokens
        if length > SPEC.context:
            raise CapacityError(f"{length} tokens; the language model reads {SPEC.context}")

    def start(
        self,
        prompts: Sequence[str],
        options: MemoryOptions,
        total: int | None = None,
        skipped: int = 0,
    ) -> ToyMemory:
        seen = None if total is None else total - skipped
        return ToyMemory(tuple(prompts), options, seen, frames=skipped)

    def restore(
        self, prompts: Sequence[str], options: MemoryOptions, slots: Slots, features: int
    ) -> ToyMemory:
        memory = self.start(prompts, options, skipped=features)
        parts = zip(slots.rows, slots.riders["deep"], slots.counts[:, 0].tolist(), strict=True)
        *memory.bank, memory.newest = (Slot(*part) for part in parts)
        memory.seconds = [feature_seconds(slots, features)]
        return memory

    def observe(self, memory: ToyMemory, features: Features) -> None:
        memory.seconds.append(features.seconds)
        for row, rider in zip(features.rows, features.riders["deep"], strict=True):
            memory.observe(Slot(row.clone(), rider.clone()))

    def context(self, memory: ToyMemory) -> Context:
        slots = memory.everything()
        rows, deep = (torch.cat([getattr(s, name) for s in slots]) for name in ("row", "rider"))
        parts = []
        for prompt in memory.prompts:
            words = torch.stack([embedded(word) for word in prompt.split()])
            tokens = torch.cat([words, rows])[None]
            extras = {
                "mask": torch.ones(1, tokens.shape[1], dtype=torch.bool),
                "deep": torch.cat([torch.zeros(len(words), DEEP), deep])[None],
            }
            parts.append(Context(tokens, [()], extras))
        return Context.joined(parts)

    def generate(
        self, context: Context, prompts: Sequence[str], decoding: Decoding, on_text: Any = None
    ) -> list[list[str]]:
        known = torch.stack([embedded(word) for word in LEXICON])
        best = (self.state(context) @ known.T).argsort(dim=1, descending=True).tolist()
        return [[LEXICON[k] for k in ranks[: decoding.beams]] for ranks in best]

    def score(self, context: Context, prompts: Sequence[str], answers: Sequence[str]) -> Tensor:
        asked = zip(prompts, answers, strict=True)
        words = torch.stack([embedded(prompt) + embedded(answer) for prompt, answer in asked])
        return F.logsigmoid((self.state(context) * words).sum(1))

    def state(self, context: Context) -> Tensor:
        """Return what the language model makes of a context, (B, C)."""
        tokens = torch.cat([context.tokens[..., DEEP:], context.extras["deep"]], dim=-1)
        real = context.extras["mask"][..., None]
        return ((context.tokens + tokens) * real).sum(1) / real.sum(1)

    def bytes_for(self, work: Any) -> int:
        return {"frame": 400, "feature": 80, "prompt": 400, "answer": 100}[work.kind]


def embedded(text: str) -> Tensor:
    """Return a vector (C,) of its own for each text."""
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(zlib.crc32(text.encode())))
