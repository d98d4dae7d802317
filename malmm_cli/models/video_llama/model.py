"""Video-LLaMA with a memory: frames → tokens of each → a bank → a few tokens in a prompt.

The vision tower, the Q-Formers and the language model are transformers' own. The second Q-Former
reads whatever the bank holds, 32 tokens for any length of video; the third one does the same with
vectors of clips of sound. Reference: Video-LLaMA, EMNLP 2023 (arXiv 2306.02858), figure 1.

Letters: B prompts, T frames, P tokens of each, C their width, S slots, n tokens for the language
model, E its width, N clips of sound, A the width of a clip's vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from malmm_cli.memory.spans import Slots
from malmm_cli.models.base import Context, Features, OnText, Spec, Work
from malmm_cli.models.video_llama import answers, prompts, sizes
from malmm_cli.models.video_llama.config import Configuration
from malmm_cli.models.video_llama.defaults import DEFAULTS
from malmm_cli.models.video_llama.memory import Memory, Track
from malmm_cli.models.video_llama.reader import Reader
from malmm_cli.models.video_llama.texts import Texts
from malmm_cli.settings import Decoding, MemoryOptions

__all__ = ["VideoLlama"]


class VideoLlama(nn.Module):
    """The whole model; the names of its parameters are those of its folder."""

    def __init__(
        self,
        config: Configuration,
        parts: dict[str, Any],
        texts: Texts,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        """`parts` are transformers' models by the names of their tensors."""
        super().__init__()
        self.config, self.texts = config, texts
        self.vision_model = parts["vision_model"]
        # the reference normalises its encoder's output with this eps; the published port with 1e-6
        self.vision_model.post_layernorm.eps = 1e-5
        self.qformer = parts["qformer"]
        width = config.qformer_config.hidden_size
        self.query_tokens = nn.Parameter(torch.zeros(1, config.query_tokens, width))
        self.video = Reader(
            parts["video_qformer"],
            queries=config.video_query_tokens,
            positions=config.frame_positions,
            width=config.text_config.hidden_size,
        )
        self.audio = None
        if config.hears:
            self.audio = Reader(
                parts["audio_qformer"],
                queries=config.audio_query_tokens,
                positions=config.clip_positions,
                width=config.text_config.hidden_size,
            )
        self.language_model = parts["language_model"]
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std), persistent=False)

    @cached_property
    def spec(self) -> Spec:
        """What never changes about it."""
        bits = (n for n in (4, 8) if getattr(self.language_model, f"is_loaded_in_{n}bit", False))
        seen_by = ("vision_model.", "qformer.", "query_tokens")
        return Spec(
            "video_llama",
            patches=self.config.query_tokens,
            width=self.config.qformer_config.hidden_size,
            context=self.config.text_config.max_position_embeddings,
            policies=DEFAULTS.policies,
            banks=DEFAULTS.banks,
            merges=DEFAULTS.merges,
            means=DEFAULTS.means,
            fills=DEFAULTS.fills,
            defaults=DEFAULTS.tasks,
            parts={"encoder": seen_by, "reader": seen_by},
            heads=self.config.vision_config.num_attention_heads,
            bits=next(bits, None),
            extends=True,
        )

    @property
    def device(self) -> torch.device:
        """Where its encoder is."""
        return self.query_tokens.device

    @property
    def dtype(self) -> torch.dtype:
        """The type that it computes in."""
        return self.query_tokens.dtype

    @property
    def answers_on(self) -> torch.device:
        """Where the language model is."""
        return torch.device(self.language_model.device)

    def move_to(self, target: torch.device | str | torch.dtype) -> None:
        """Move to a device or number type all but the language model, which is loaded in place."""
        for name, part in self.named_children():
            if name != "language_model":
                part.to(target)
        self.query_tokens.data = self.query_tokens.data.to(target)
        self.pixel_mean, self.pixel_std = self.pixel_mean.to(target), self.pixel_std.to(target)

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """The square that every frame becomes."""
        side = int(self.config.vision_config.image_size)
        return (side, side)

    @torch.no_grad()
    def encode(self, frames: Tensor, seconds: Tensor) -> Features:
        """Frames (T, H, W, 3) uint8 RGB, shown at `seconds` (T,), to features of P tokens."""
        return Features(self.rows(self.normalised(frames)), seconds[:, None].expand(-1, 2))

    def normalised(self, frames: Tensor) -> Tensor:
        """Frames (T, H, W, 3) uint8 as the pixels (T, 3, H, W) that the vision tower takes."""
        pixels = frames.to(self.device).permute(0, 3, 1, 2).to(self.pixel_mean.dtype) / 255
        return (pixels - self.pixel_mean[:, None, None]) / self.pixel_std[:, None, None]

    def rows(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (T, 3, H, W) to the tokens (T, P, C) of each frame."""
        return self.asked(self.vision_model(pixel_values=pixels).last_hidden_state)

    def asked(self, patches: Tensor) -> Tensor:
        """What the first Q-Former makes of the patches (T, *, *) of each frame: (T, P, C)."""
        queries = self.query_tokens.expand(len(patches), -1, -1)
        out = self.qformer(query_embeds=queries, encoder_hidden_states=patches)
        found: Tensor = out.last_hidden_state
        return found

    def check(
        self, prompts: Sequence[str], options: MemoryOptions, decoding: Decoding, features: int
    ) -> None:
        """Raise CapacityError if the language model cannot read what it would be given."""
        if prompts:
            sizes.check(self.config, self.texts, prompts, options, decoding, features)

    def start(
        self,
        prompts: Sequence[str],
        options: MemoryOptions,
        total: int | None = None,
        skipped: int = 0,
    ) -> Memory:
        """An empty memory; `total` counts the features of the video, if that is known."""
        coming = None if total is None else total - skipped
        return Memory(len(prompts), Track(options, coming, seen=skipped))

    def restore(
        self, prompts: Sequence[str], options: MemoryOptions, slots: Slots, features: int
    ) -> Memory:
        """A memory that holds `slots` of a video with that many features; it can go on."""
        memory = self.start(prompts, options)
        memory.pictures.hold(slots._replace(rows=slots.rows.to(self.device)), features)
        return memory

    @torch.no_grad()
    def observe(self, memory: Memory, features: Features) -> None:
        """Let memory take in features that follow those it has seen."""
        features = features.to(self.device)
        if memory.pictures.reads_apart:
            memory.pictures.keep(self.video.each(features.rows))
        memory.pictures.observe(features)

    @torch.no_grad()
    def hear(self, memory: Memory, clips: Features) -> None:
        """Let memory take in clips of sound, rows (N, 1, A), that follow those it has heard."""
        assert self.audio is not None, "this model has no parts that read sound"
        if memory.sound is None:
            memory.sound = Track(MemoryOptions(self.config.clip_positions, banks="visual"))
        memory.sound.observe(clips.to(self.device))

    @torch.no_grad()
    def context(self, memory: Memory) -> Context:
        """The tokens of what memory holds now, sound before pictures, the same for all prompts.

        Beside them stand which of them are sound, and when the pictures are shown.
        """
        heard, seen, seconds = [], [], torch.zeros(0, dtype=torch.float64)
        if memory.sound is not None and self.audio is not None:
            heard.append(self.audio.projected(self.audio.whole(memory.sound)))
        if memory.pictures.newest is not None:
            seen.append(self.video.projected(self.video.whole(memory.pictures)))
            seconds = memory.pictures.shown()
        tokens = torch.cat([*heard, *seen])
        sound = torch.arange(len(tokens), device=tokens.device) < sum(map(len, heard))
        extras = {"mask": torch.ones_like(sound), "sound": sound}
        extras |= {"shown": torch.ones(len(seconds), dtype=torch.bool), "seconds": seconds}
        number = memory.prompts
        extras = {name: extra.expand(number, *extra.shape) for name, extra in extras.items()}
        return Context(tokens.expand(number, *tokens.shape), [()] * number, extras)

    def generate(
        self,
        context: Context,
        prompts: Sequence[str],
        decoding: Decoding,
        on_text: OnText | None = None,
    ) -> list[list[str]]:
        """Candidates for each prompt, the best first."""
        inputs = [self._input(context, k, (), prompt) for k, prompt in enumerate(prompts)]
        return self._answered(context, inputs, decoding, on_text)

    def reply(
        self,
        context: Context,
        turns: Sequence[tuple[str, str]],
        question: str,
        decoding: Decoding,
        on_text: OnText | None = None,
    ) -> list[str]:
        """Candidates for the next question after earlier ones and their answers, the best first."""
        given = self._input(context, 0, turns, question)
        return self._answered(context, [given], decoding, on_text)[0]

    def score(self, context: Context, prompts: Sequence[str], answers_: Sequence[str]) -> Tensor:
        """Log-likelihood (B,) float32 of each answer to its prompt."""
        inputs = [self._input(context, k, (), prompt) for k, prompt in enumerate(prompts)]
        return answers.likelihoods(self.language_model, self.texts, inputs, answers_)

    def bytes_for(self, work: Work) -> int:
        """Bytes that are held at once for some work."""
        return sizes.bytes_for(self.config, self.texts, self.dtype.itemsize, work)

    def _answered(
        self,
        context: Context,
        inputs: Sequence[Tensor],
        decoding: Decoding,
        on_text: OnText | None,
    ) -> list[list[str]]:
        media, longest = context.tokens.shape[1], max(map(len, inputs))
        sizes.check_read(self.config, media, longest - media, decoding)
        return answers.generate(self.language_model, self.texts, inputs, decoding, on_text)

    @torch.no_grad()
    def _input(
        self, context: Context, index: int, turns: Sequence[tuple[str, str]], question: str
    ) -> Tensor:
        """The language model's input (L, E) for a question about the context of one prompt."""
        extras = {name: extra[index] for name, extra in context.extras.items()}
        tokens, sound = (x[extras["mask"]] for x in (context.tokens[index], extras["sound"]))
        seconds = extras["seconds"][extras["shown"]].tolist()
        heard = bool(sound.any())
        media = [part for part in (tokens[sound], tokens[~sound]) if len(part)]
        first, *later = [*(asked for asked, _ in turns), question]
        told = [prompts.message(first, seconds, heard=heard), *later]
        before = [(asked, answer) for asked, (_, answer) in zip(told[:-1], turns, strict=True)]
        system = prompts.system(seconds, heard=heard)
        pieces = prompts.pieces(self.texts.form, system, before, told[-1])
        return answers.spliced(self.language_model, self.texts.pieces(pieces), media)
