"""A vision-language model with a memory: frames → rows → a bank of whole slots → its own prompt.

Encoder, projector and language model are transformers' own and stay frozen. The memory knows
nothing of questions: its slots are read once, and every question goes on from there.

Letters: B prompts, T features of P tokens, C width, S slots, L tokens of the prefix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from malmm_cli.memory.spans import Slots, feature_seconds
from malmm_cli.models.base import Context, Features, OnText, Spec, Work
from malmm_cli.models.shortage import Step
from malmm_cli.models.vlm import answers, prefix, second_look, sizes
from malmm_cli.models.vlm.adapter import Adapter, Tokens
from malmm_cli.models.vlm.defaults import DEFAULTS
from malmm_cli.models.vlm.memory import Memory
from malmm_cli.models.vlm.texts import Texts
from malmm_cli.settings import Decoding, MemoryOptions

__all__ = ["VisionLanguage"]


@dataclass
class VisionLanguage:
    """The model `net` of transformers, the adapter of its architecture, and its tokenizer."""

    net: Any
    adapter: Adapter
    texts: Texts
    bits: int | None = None

    @cached_property
    def spec(self) -> Spec:
        """What never changes about it."""
        vision = self.adapter.config.vision_config
        seen_by = (*self.adapter.encoder, *self.adapter.projector)
        beside = (("levels", self._level_columns), ("place", self._axes))
        return Spec(
            "vlm",
            patches=self.adapter.patches,
            width=self.adapter.width,
            context=self.adapter.config.text_config.max_position_embeddings,
            policies=DEFAULTS.policies,
            banks=DEFAULTS.banks,
            merges=DEFAULTS.merges,
            means=DEFAULTS.means,
            fills=DEFAULTS.fills,
            training=DEFAULTS.training,
            looks_again=DEFAULTS.looks_again,
            defaults=DEFAULTS.tasks,
            parts={"encoder": seen_by, "reader": seen_by},
            heads=getattr(vision, "num_heads", None) or vision.num_attention_heads,
            bits=self.bits,
            extends=True,
            frames_per_feature=self.adapter.frames_per_feature,
            riders={name: width for name, width in beside if width},
        )

    @property
    def device(self) -> torch.device:
        """Where its encoder is."""
        return torch.device(self.net.device)

    @property
    def dtype(self) -> torch.dtype:
        """The type that it computes in."""
        dtype: torch.dtype = self.net.dtype
        return dtype

    @property
    def answers_on(self) -> torch.device:
        """Where its language model begins."""
        device: torch.device = self._embedding.weight.device
        return device

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the frames that `encode` takes of such a video."""
        return self.adapter.frame_size(width, height)

    @torch.no_grad()
    def encode(self, frames: Tensor, seconds: Tensor) -> Features:
        """Frames (T k, H, W, 3) uint8 RGB, shown at `seconds` (T k,), to T features of k each."""
        found = self.adapter.encode(self.net, self.adapter.normalised(frames.to(self.device)))
        return self.apart(self.placed(found, frames, seconds))

    def placed(self, rows: Tensor, frames: Tensor, seconds: Tensor) -> Features:
        """Rows (T, P, *) that were made of frames, with their places in time and in the picture."""
        riders = {}
        if self._axes:
            place = self.adapter.places(*frames.shape[1:3]).to(rows)
            riders["place"] = place.expand(len(rows), -1, -1)
        return Features(rows, seconds.view(len(rows), -1)[:, [0, -1]], riders)

    def apart(self, features: Features) -> Features:
        """The same with the levels, which follow in its rows, as a rider."""
        if not self.adapter.levels:
            return features
        widths = [self.adapter.width, self._level_columns]
        rows, levels = torch.split(features.rows, widths, dim=-1)
        return features._replace(rows=rows, riders={"levels": levels, **features.riders})

    def check(
        self, prompts: Sequence[str], options: MemoryOptions, decoding: Decoding, features: int
    ) -> None:
        """Raise CapacityError if the language model cannot read what it would be given."""
        if prompts:
            sizes.check(self.adapter, self.texts, prompts, options, decoding, features)

    def start(
        self,
        prompts: Sequence[str],
        options: MemoryOptions,
        total: int | None = None,
        skipped: int = 0,
    ) -> Memory:
        """An empty memory; `total` counts the features of the video, if that is known."""
        seen = None if total is None else total - skipped
        widths = {"rows": self.spec.width, **self.spec.riders}
        return Memory(len(prompts), options, widths, seen, frames=skipped)

    def restore(
        self, prompts: Sequence[str], options: MemoryOptions, slots: Slots, features: int
    ) -> Memory:
        """A memory that holds `slots` of a video with that many features; it can go on."""
        memory = self.start(prompts, options)
        riders = {name: rider.to(self.device) for name, rider in slots.riders.items()}
        slots = slots._replace(rows=slots.rows.to(self.device), riders=riders)
        memory.hold(slots, feature_seconds(slots, features))
        memory.frames = features
        return memory

    def observe(self, memory: Memory, features: Features) -> None:
        """Let memory take in features that follow those it has seen."""
        memory.observe(features.to(self.device))

    @torch.no_grad()
    def context(self, memory: Memory) -> Context:
        """The prefix of what memory holds now, the same for all prompts."""
        return self.shown(memory.given(), memory.prompts)

    def shown(self, slots: Slots, number: int) -> Context:
        """The prefix of some slots, for so many prompts."""
        tokens = prefix.laid_out(self.adapter, self.texts, self._embedding, slots)
        assert tokens.visual is not None
        extras = {"positions": tokens.positions.permute(1, 2, 0), "visual": tokens.visual[None]}
        if tokens.levels is not None:
            extras["levels"] = tokens.levels.transpose(0, 1)[None]
        extras = {name: extra.expand(number, *extra.shape[1:]) for name, extra in extras.items()}
        shared = tokens.embeds.expand(number, -1, -1)
        return Context(shared, [()] * number, extras)

    def generate(
        self,
        context: Context,
        prompts: Sequence[str],
        decoding: Decoding,
        on_text: OnText | None = None,
    ) -> list[list[str]]:
        """Candidates for each prompt, the best first."""
        found: list[list[str]] = [[] for _ in prompts]
        for which, tokens, cache in self._prefixes(context):
            asked = [prompts[k] for k in which]
            sizes.check_asked(self.adapter, self.texts, tokens.embeds.shape[1], asked, decoding)
            told = answers.generate(
                *(self.adapter, self.net, self.texts, tokens, cache, asked, decoding, on_text)
            )
            for k, candidates in zip(which, told, strict=True):
                found[k] = candidates
        return found

    def score(self, context: Context, prompts: Sequence[str], answers_: Sequence[str]) -> Tensor:
        """Log-likelihood (B,) float32 of each answer to its prompt."""
        found = torch.zeros(len(prompts))
        for which, tokens, cache in self._prefixes(context):
            asked = ([prompts[k] for k in which], [answers_[k] for k in which])
            scores = answers.likelihoods(self.adapter, self.net, self.texts, tokens, cache, *asked)
            found[which] = scores.cpu()
        return found

    @torch.no_grad()
    def logits(self, context: Context, prompt: str) -> Tensor:
        """The logits (l, V) float32 at each of the l tokens of a prompt behind the first prefix."""
        _, tokens, cache = next(self._prefixes(context))
        parts = (self.adapter, self.net, self.texts, tokens, cache)
        return answers.logits(*parts, prompt)

    def looks_at(self, context: Context, prompts: Sequence[str]) -> Tensor:
        """How much each prompt looks at each slot of its context, (B, S) float32."""
        found: dict[int, Tensor] = {}
        for which, tokens, cache in self._prefixes(context):
            asked = [prompts[k] for k in which]
            parts = (self.adapter, self.net, self.texts, tokens, cache)
            found |= dict(zip(which, second_look.attended(*parts, asked), strict=True))
        return torch.stack([found[k] for k in range(len(prompts))])

    @torch.no_grad()
    def look_again(self, memory: Memory, features: Features, prompts: Sequence[str]) -> Context:
        """A context with these features frame by frame among half of what memory holds.

        Together they are no more slots than memory has. Features are in order of time.
        """
        ones = torch.ones(features.rows.shape[:2], dtype=torch.long, device=features.rows.device)
        shown = features.seconds[:, None].expand(-1, features.rows.shape[1], -1)
        frames = Slots(features.rows, ones, shown, features.riders)
        overview = memory.given()
        left = max(len(overview.rows) - len(ones), len(overview.rows) // 2, 1)
        joined = second_look.beside(second_look.narrowed(overview, left), frames)
        return self.shown(joined, len(prompts))

    def bytes_for(self, work: Work) -> int:
        """Bytes that are held at once for some work."""
        return sizes.bytes_for(self.adapter, self.texts, self.dtype.itemsize, work)

    def _prefixes(self, context: Context) -> Iterator[tuple[list[int], Tokens, Any]]:
        """Each prefix that differs: the prompts behind it, its tokens (1, L, C), its cache."""
        left = [*range(len(context))]
        while left:
            tokens = self.prefix_of(context, left[0])
            same = [k for k in left if torch.equal(context.tokens[k], tokens.embeds[0])]
            yield same, tokens, self._cache(context, tokens)
            left = [k for k in left if k not in same]

    def prefix_of(self, context: Context, index: int) -> Tokens:
        """The prefix of one prompt."""
        extras = {name: extra[index] for name, extra in context.extras.items()}
        levels = extras["levels"].transpose(0, 1) if "levels" in extras else None
        positions = extras["positions"].T[:, None]
        return Tokens(context.tokens[index][None], positions, extras["visual"], levels)

    @torch.no_grad()
    def _cache(self, context: Context, tokens: Tokens) -> Any:
        """The cache of a prefix, which the context keeps for all prompts to come."""
        known = context.kept.get("prefix")
        if known is None or not torch.equal(known[0], tokens.embeds):
            known = context.kept["prefix"] = (tokens.embeds, self._prefilled(tokens))
        return known[1]

    def _prefilled(self, tokens: Tokens) -> Any:
        """The cache of a prefix; read anew in smaller pieces where memory runs out."""
        length = tokens.embeds.shape[1]
        doing = f"read the video's {length} tokens, {{}}"
        less = {"memory": "a smaller --memory", "frames": "fewer --frames"}
        step = Step(self, min(prefix.CHUNK, length), doing, "token", remedies=less)
        while True:
            with step:
                return prefix.prefilled(self.adapter, self.net, tokens, step.size)

    @property
    def _level_columns(self) -> int:
        return self.adapter.levels * self.adapter.width

    @property
    def _axes(self) -> int:
        """Columns that say where a token is in its picture; none where positions only count."""
        return 2 if self.adapter.axes > 1 else 0

    @property
    def _embedding(self) -> Any:
        return self.net.get_input_embeddings()
