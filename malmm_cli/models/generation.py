"""Visual tokens and prompts → text, by the frozen language model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from malmm_cli.errors import CapacityError
from malmm_cli.models.config import quiet
from malmm_cli.settings import Decoding, MemoryOptions

__all__ = ["Words", "check_context", "generate", "likelihoods", "search_options", "seeded"]


class Decoder(Protocol):
    """What a tokenizer makes of generated ids."""

    def decode(self, ids: Tensor) -> list[str]:
        """Generated ids (B, L) to text, one line each."""


class Texts(Decoder, Protocol):
    """What a language model's tokenizer makes of prompts, and of generated ids."""

    @property
    def decoder_only(self) -> bool:
        """Whether it goes on from the prompt, and has no encoder for it."""

    @property
    def padding(self) -> int:
        """The id of nothing."""

    @property
    def ends(self) -> Sequence[int]:
        """The ids of an answer's end."""

    def prompts(self, prompts: Sequence[str], *, side: str) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, L) int64, padded on the `side` given."""


class Speaker(Protocol):
    """A family whose language model reads tokens before prompts, as embeddings."""

    language_model: Any

    @property
    def texts(self) -> Texts:
        """Its tokenizer."""

    def visual_tokens(self, options: MemoryOptions, frames: int) -> int:
        """How many tokens it is given for a video with that many frames."""

    def embed(self, tokens: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens (B, n, D) before prompts: input (B, n + L, E), and mask."""

    def embed_with_answers(
        self, tokens: Tensor, prompts: Sequence[str], answers: Sequence[str]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same with answers, and their labels, -100 everywhere else."""


@torch.no_grad()
def generate(
    model: Speaker,
    tokens: Tensor,
    prompts: Sequence[str],
    decoding: Decoding,
    on_text: Callable[[str], None] | None = None,
) -> list[list[str]]:
    """Candidates for each prompt, the best first; as many as there are beams.

    tokens (B, n, D) are those of the video for B prompts. `on_text` receives complete words as they
    come, only for one prompt and one beam. Raises CapacityError where tokens,
    prompt and answer together are more than the language model reads.
    """
    embeds, mask = model.embed(tokens, prompts)
    check_context(model, tokens.shape[1], prompts, decoding.max_new_tokens)
    words = None if on_text is None else Words(model.texts, on_text)
    # Input ids beside the embeddings would put the prompt under the repetition penalty, which the
    # reference does not do; transformers warns that they are missing.
    with seeded(decoding.seed, embeds.device), quiet():
        ids = model.language_model.generate(
            inputs_embeds=embeds,
            attention_mask=mask,
            pad_token_id=model.texts.padding,
            eos_token_id=model.texts.ends,
            **search_options(decoding, words),
        )
        texts = model.texts.decode(ids)
    return [texts[i : i + decoding.beams] for i in range(0, len(texts), decoding.beams)]


def search_options(decoding: Decoding, words: Words | None = None) -> dict[str, Any]:
    """How transformers' `generate` is to search, and who is told of each token.

    It complains of options that a search does not use.
    """
    search: dict[str, Any] = {
        "max_new_tokens": decoding.max_new_tokens,
        "repetition_penalty": decoding.repetition_penalty,
        "do_sample": decoding.sample,
        "num_beams": decoding.beams,
        "num_return_sequences": decoding.beams,
    }
    if decoding.beams > 1:
        search |= {"length_penalty": decoding.length_penalty}
    if decoding.sample:
        search |= {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0}
    if words is not None:
        search |= {"streamer": words}
    return search


class Words(BaseStreamer):
    """Takes token after token of one text and tells what is new of it, word by word.

    All tokens are decoded again each time, so that the pieces add up to the final text.
    """

    def __init__(self, texts: Decoder, on_text: Callable[[str], None]) -> None:
        self._texts, self._on_text = texts, on_text
        self._ids: list[int] = []
        self._shown = 0

    def put(self, value: Tensor) -> None:
        """Transformers' next tokens: before the first one, what the decoder starts with, if any."""
        self._ids += value.flatten().tolist()
        text = self._text()
        self._tell(text[: text.rfind(" ") + 1])  # the last word may go on

    def end(self) -> None:
        """There are no more tokens."""
        self._tell(self._text())

    def _text(self) -> str:
        return self._texts.decode(torch.tensor([self._ids]))[0] if self._ids else ""

    def _tell(self, text: str) -> None:
        if len(text) > self._shown:
            self._on_text(text[self._shown :])
            self._shown = len(text)


@torch.no_grad()
def likelihoods(
    model: Speaker, tokens: Tensor, prompts: Sequence[str], answers: Sequence[str]
) -> Tensor:
    """Log-likelihood (B,) float32 of each answer under tokens (B, n, D) and its prompt.

    The sum over the answer's tokens and the one that ends it: that of giving this answer, whole
    and nothing more. Raises CapacityError as `generate` does.
    """
    longest = model.texts.prompts(answers, side="right")[0].shape[1]
    check_context(model, tokens.shape[1], prompts, longest)
    embeds, mask, labels = model.embed_with_answers(tokens, prompts, answers)
    encoder_decoder = {} if model.texts.decoder_only else {"labels": labels}
    logits = model.language_model(
        inputs_embeds=embeds, attention_mask=mask, **encoder_decoder
    ).logits
    if model.texts.decoder_only:  # a decoder's position tells the token after it
        logits, labels = logits[:, :-1], labels[:, 1:]
    given = labels != -100
    logarithms = logits.float().log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return torch.where(given, logarithms, 0.0).sum(1)


def check_context(model: Speaker, visual: int, prompts: Sequence[str], new: int) -> None:
    """Raise CapacityError if that many visual tokens, the prompts and new tokens do not fit."""
    limit = getattr(model.language_model.config, "max_position_embeddings", None)
    given = model.texts.prompts(prompts, side="left")[0].shape[1]
    if not model.texts.decoder_only or limit is None or visual + given + new <= limit:
        return  # encoder-decoders have relative positions, without a limit
    parts = f"{visual} visual tokens, {given} prompt tokens and {new} new tokens"
    raise CapacityError(
        f"{parts} make {visual + given + new}; the language model reads {limit}",
        hint=_remedy(model, visual, limit - given - new),
    )


def _remedy(model: Speaker, visual: int, left: int) -> str:
    """Return what to do where `visual` tokens do not fit into the `left` ones."""
    remembered = model.visual_tokens(MemoryOptions(length=20), 20)
    if visual <= remembered:
        return "shorten the prompt, or lower --max-new-tokens"
    frames = max(left // model.visual_tokens(MemoryOptions(length=0), 1), 0)
    less = f", or use at most {frames} frames without a memory" if frames else ""
    return f"use a memory: --memory 20 gives {remembered} visual tokens for any length{less}"


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Draw from `seed` inside, and as if nothing had been drawn after; None changes nothing."""
    if seed is None:
        yield
        return
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
