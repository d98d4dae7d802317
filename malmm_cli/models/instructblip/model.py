"""InstructBLIP with a memory: image encoder, Q-Former, projection, language model.

The image encoder and the language model are transformers' own and stay frozen; the language
model is handed the query tokens of the last step alone, 32 whatever the video's length, where
transformers' InstructBLIP-Video hands over 32 per frame. Reference: MA-LMM, CVPR 2024, figure 2.

Letters: V videos, B prompts (B / V of each video, side by side), T frames, P patch tokens,
C encoder width, n query tokens, D Q-Former width, E language model width, L prompt tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from malmm_cli.memory.bank import MemoryBank
from malmm_cli.memory.spans import Slots, feature_seconds, places
from malmm_cli.models.base import Context, Features, Spec, Work
from malmm_cli.models.instructblip.cuda_graph import replayed
from malmm_cli.models.instructblip.defaults import DEFAULTS
from malmm_cli.models.instructblip.language import LanguagePart
from malmm_cli.models.instructblip.memory import Memory
from malmm_cli.models.instructblip.positions import let_positions_learn, position
from malmm_cli.models.instructblip.qformer import QFormer
from malmm_cli.models.instructblip.sizes import bytes_for, feature_shape
from malmm_cli.models.instructblip.tokenizers import Texts
from malmm_cli.settings import MemoryOptions

__all__ = ["InstructBlip"]


class InstructBlip(LanguagePart):
    """The whole model, with the published weights' parameter names.

    `position_embedding` (positions, C) is MA-LMM's own and comes from fine-tuning; the published
    weights have none.
    """

    def __init__(
        self,
        config: Any,
        vision_model: Any,
        language_model: Any,
        texts: Texts,
        *,
        positions: int = 0,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        super().__init__(config, language_model, texts)
        self.vision_model = vision_model
        # the reference normalises its encoder's output with this eps; the published port with 1e-6
        vision_model.post_layernorm.eps = 1e-5
        self.qformer = QFormer(config.qformer_config)
        self.position_embedding = (
            nn.Embedding(positions, config.qformer_config.encoder_hidden_size)
            if positions
            else None
        )
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std), persistent=False)

    @property
    def image_size(self) -> int:
        """Width and height of the frames that `encode` takes."""
        return int(self.config.vision_config.image_size)

    @cached_property
    def spec(self) -> Spec:
        """What never changes about it."""
        bits = (n for n in (4, 8) if getattr(self.language_model, f"is_loaded_in_{n}bit", False))
        return Spec(
            "instructblip",
            *feature_shape(self.config),
            context=self.limit,
            policies=DEFAULTS.policies,
            banks=DEFAULTS.banks,
            merges=DEFAULTS.merges,
            means=DEFAULTS.means,
            training=DEFAULTS.training,
            defaults=DEFAULTS.tasks,
            parts={
                "encoder": ("vision_model.",),
                "reader": ("vision_model.", "position_embedding."),
            },
            heads=self.config.vision_config.num_attention_heads,
            bits=next(bits, None),
            extends=self.position_embedding is None,  # its rows hang on the length of the whole
        )

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """The square that every frame becomes."""
        return (self.image_size, self.image_size)

    def move_to(self, target: torch.device | str | torch.dtype) -> None:
        """Move to a device or number type all but the language model, which is loaded in place."""
        for part in (self.vision_model, self.qformer, self.language_projection):
            part.to(target)
        if self.position_embedding is not None:
            self.position_embedding.to(target)
        self.query_tokens.data = self.query_tokens.data.to(target)
        self.pixel_mean, self.pixel_std = self.pixel_mean.to(target), self.pixel_std.to(target)

    def encode(self, frames: Tensor, seconds: Tensor) -> Features:
        """Frames (T, H, W, 3) uint8 RGB of `image_size`, shown at `seconds` (T,), to features.

        Features know nothing of prompts or of each other.
        """
        return Features(self.encode_frames(frames), seconds[:, None].expand(-1, 2))

    @torch.no_grad()
    def encode_frames(self, frames: Tensor) -> Tensor:
        """Frames (T, H, W, 3) uint8 RGB of `image_size` to rows (T, P, C)."""
        pixels = frames.to(self.device).permute(0, 3, 1, 2).to(self.pixel_mean.dtype) / 255
        mean, std = self.pixel_mean[:, None, None], self.pixel_std[:, None, None]
        return self.encode_pixels((pixels - mean) / std)

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (T, 3, H, W) to features (T, P, C)."""
        pixels = pixels.to(self.vision_model.dtype)  # in training the Q-Former's may be another
        features: Tensor = self.vision_model(pixel_values=pixels).last_hidden_state
        return features

    @torch.no_grad()
    def start(
        self,
        prompts: Sequence[str],
        options: MemoryOptions,
        total: int | None = None,
        skipped: int = 0,
    ) -> Memory:
        """An empty memory for prompts; see `malmm_cli.memory` for the options.

        `total` is the number of the video's frames, if that is known: it places them in a position
        table that is shorter than the video. Without prompts only the visual bank is kept.
        """
        if prompts:
            ids, mask = (x.to(self.device) for x in self.texts.instructions(prompts))
        else:
            ids = mask = torch.zeros(0, 0, dtype=torch.long, device=self.device)
        places = {"total": total, "skipped": skipped}
        memory = self.start_from_ids(ids, mask, **asdict(options), **places)
        memory.warnings = [self.texts.cut(prompt) for prompt in prompts]
        return memory

    def start_from_ids(self, ids: Tensor, mask: Tensor, **options: Any) -> Memory:
        """`start` for prompts that the Q-Former's tokenizer has read: ids, mask (B, L) int64."""
        return self.qformer.start(self.query_tokens, ids, mask, **options)

    @torch.no_grad()
    def restore(
        self, prompts: Sequence[str], options: MemoryOptions, slots: Slots, features: int
    ) -> Memory:
        """A memory for prompts whose visual bank is `slots`; each query bank reads them again."""
        memory = self.start(prompts, options.within(len(slots.rows)) if prompts else options)
        memory.placed = True
        rows = slots.rows
        if slots.shown is not None:
            frames = zip(rows.to(self.device), places(slots, features).tolist(), strict=True)
            rows = torch.stack([self._at_position(*frame, features) for frame in frames])
        self.observe(memory, Features(rows, slots.seconds[:, 0]))
        if isinstance(memory.visual, MemoryBank) and not memory.visual.is_empty:
            memory.visual.counts[0, : memory.visual.used] = slots.counts[: memory.visual.used]
        memory.placed, memory.frames = False, features
        memory.seconds = [feature_seconds(slots, features)]
        return memory

    @torch.no_grad()
    def observe(self, memory: Memory, features: Features) -> None:
        """Let memory take in features (T, P, C), or (V, T, P, C), that follow those it has seen.

        The newest frame is held back until the next one comes: `context` reads it against the banks
        without storing it there.
        """
        rows = features.rows.to(self.device, self.dtype)
        rows = rows if rows.dim() == 4 else rows[None]
        assert len(memory.hidden) % len(rows) == 0, "prompts must be shared evenly among videos"
        memory.seconds.append(features.seconds)
        if memory.reads_apart:
            if len(memory.hidden):
                self._keep(self.qformer.apart(rows, memory, self.num_queries), memory)
            memory.newest = rows[:, -1].clone()  # for `slots`
            memory.frames += rows.shape[1]
            return
        if memory.keeps_nothing:
            memory.frames += rows.shape[1] - 1
            memory.newest = None
            rows = rows[:, -1:]
        for index in range(rows.shape[1]):
            newest = memory.newest
            if newest is not None and not replayed(self._store, newest, memory):
                how = {"store": True, "projected": len(memory.hidden) > 0}
                self.qformer.step(newest, memory, self.num_queries, **how)
            memory.newest = self.placed(rows[:, index], memory)
        # the rows may be made by another stream of a GPU, and overwritten there
        memory.newest = memory.newest.clone() if memory.newest is not None else None

    @torch.no_grad()
    def context(self, memory: Memory) -> Context:
        """The query outputs (B, n, D) of the newest frame, read against the banks.

        Without a memory (length 0) those of all frames, (B, frames * n, D).
        """
        if memory.reads_apart:
            assert memory.tokens is not None, "no frame was observed"
            return Context(memory.tokens, memory.warnings)
        assert memory.newest is not None, "no frame was observed"
        tokens = self.qformer.step(memory.newest, memory, self.num_queries)
        return Context(tokens, memory.warnings)

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that learn: Q-Former, query tokens, projection and position table."""
        parts = ("query_tokens", "qformer.", "language_projection.", "position_embedding.")
        named = dict(self.named_parameters())
        return {name: named[name] for part in parts for name in named if name.startswith(part)}

    stacks_videos = True

    def encoder(self) -> InstructBlip:
        """The model itself: nothing before its memory learns."""
        return self

    def prepare(self, *, positions: int, lora: int | None = None, seed: int = 0) -> None:
        """Give it a table of so many frame positions, all zero, if it has none."""
        if self.position_embedding is None and positions:
            table = nn.Embedding(positions, self.config.vision_config.hidden_size)
            nn.init.zeros_(table.weight)
            self.position_embedding = table.to(self.device)

    def train_reader(self, mode: bool) -> None:
        """Switch the Q-Former's dropout on or off."""
        self.qformer.train(mode)

    def training_context(
        self,
        videos: Sequence[Features],
        prompts: Sequence[str],
        options: MemoryOptions,
        *,
        position_gradient: str,
    ) -> Context:
        """The context of V videos, with gradient: see `remember_for_training`."""
        rows = torch.stack([video.rows for video in videos]).to(self.device)
        ids, mask = (x.to(self.device) for x in self.texts.instructions(prompts))
        how = {**asdict(options), "total": rows.shape[1]}
        tokens = self.remember_for_training(
            rows, ids, mask, position_gradient=position_gradient, **how
        )
        return Context(tokens, [self.texts.cut(prompt) for prompt in prompts])

    def remember_for_training(
        self,
        features: Tensor,
        ids: Tensor,
        mask: Tensor,
        *,
        position_gradient: str = "last",
        **options: Any,
    ) -> Tensor:
        """Tokens of features (V, T, P, C) under prompts ids, mask (B, L), with gradient.

        As in the reference, earlier frames are read without gradient. The last one projects the
        banks again from their stored inputs, so that key and value weights learn through every
        entry. `position_gradient` "last" gives the position table gradient at the last frame
        alone, which is the reference's; "all" at every frame in the visual bank too. Tokens are
        the same.
        """
        memory = self.start_from_ids(ids, mask, first_layer=self._drops_out, **options)
        if memory.reads_apart:
            self._keep(self.qformer.apart(features, memory, self.num_queries), memory)
            assert memory.tokens is not None
            return memory.tokens
        last = features.shape[1] - 1
        with torch.no_grad():
            for index in range(last):
                memory.hidden = self.qformer.embeddings(self.query_tokens, ids)
                feature = self.placed(features[:, index], memory)
                self.qformer.step(feature, memory, self.num_queries, store=True, projected=False)
        memory = memory.plain()
        if position_gradient == "all" and self.position_embedding is not None:
            let_positions_learn(memory, self.position_embedding.weight)
        memory.hidden = self.qformer.embeddings(self.query_tokens, ids)
        newest = self.placed(features[:, last], memory)
        return self.qformer.step(newest, memory, self.num_queries)

    def merged(
        self, base: Mapping[str, Tensor], trained: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """What was trained, as it is."""
        return dict(trained)

    def bytes_for(self, work: Work) -> int:
        """Bytes that are held at once for some work."""
        return bytes_for(self, work)

    @property
    def _drops_out(self) -> bool:
        """Whether what the Q-Former's first layer is given varies in training."""
        qformer = self.config.qformer_config
        return bool(max(qformer.hidden_dropout_prob, qformer.attention_probs_dropout_prob) > 0)

    def _store(self, feature: Tensor, memory: Memory) -> None:
        """The step that is captured on CUDA: as in `observe`, for a memory with prompts."""
        self.qformer.step(feature, memory, self.num_queries, store=True)

    def placed(self, feature: Tensor, memory: Memory) -> Tensor:
        """The next frame (V, P, C) of memory, which counts it, with its position embedding."""
        memory.frames += 1
        if memory.placed:
            return feature
        return self._at_position(feature, memory.frames - 1, memory.total)

    def _at_position(self, feature: Tensor, frame: int, total: int | None) -> Tensor:
        """A frame (V, P, C), counted from 0, with its position embedding, if there are any."""
        if self.position_embedding is None:
            return feature
        return feature + position(self.position_embedding.weight, frame, total)

    def _keep(self, tokens: Tensor, memory: Memory) -> None:
        """Add the tokens (B, T, n, D) of frames that were read apart to memory."""
        if memory.policy == "average":
            mean = tokens.mean(dim=1)
            if memory.tokens is not None:
                seen = sum(map(len, memory.seconds))
                mean = torch.lerp(memory.tokens, mean, tokens.shape[1] / seen)
            memory.tokens = mean
        else:
            flat = tokens.flatten(1, 2)
            memory.tokens = flat if memory.tokens is None else torch.cat([memory.tokens, flat], 1)
