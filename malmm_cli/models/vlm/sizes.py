"""How much a language model can read of a memory, and how many bytes are held at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

import torch

from malmm_cli.errors import CapacityError
from malmm_cli.models.base import Work
from malmm_cli.models.vlm import prefix
from malmm_cli.models.vlm.adapter import Adapter
from malmm_cli.models.vlm.texts import Texts
from malmm_cli.settings import Decoding, MemoryOptions

__all__ = ["bytes_for", "check", "check_asked", "given"]


def check(
    adapter: Adapter,
    texts: Texts,
    prompts: Sequence[str],
    options: MemoryOptions,
    decoding: Decoding,
    features: int,
) -> None:
    """Raise CapacityError where slots, the longest prompt and its answer are too many tokens."""
    limit = _limit(adapter)
    rest = _asked(adapter, texts, prompts) + decoding.max_new_tokens
    slots = _slots(options, features)
    most = min(slots, limit // adapter.most + 1)  # no more can fit
    given = prefix.length(adapter, texts, most, adapter.most)
    if most == slots and given + rest <= limit:
        return
    fitting = most - 1
    while fitting and prefix.length(adapter, texts, fitting, adapter.most) + rest > limit:
        fitting -= 1
    raise CapacityError(
        f"{slots} slots of {adapter.most} tokens each with their times, a prompt and an answer of "
        f"{rest} are more than the {limit} tokens that the language model reads",
        hint=_remedy(options, fitting),
    )


def _remedy(options: MemoryOptions, fitting: int) -> str:
    """What to do where no more than `fitting` slots fit; the newest is one of them."""
    if fitting < 2:
        return "shorten the prompt, or lower --max-new-tokens"
    if options.gives_every_frame:
        return f"use a memory: --memory {fitting - 1} is the longest that fits"
    return f"at most {fitting} slots fit: --memory {fitting - 1}"


def check_asked(
    adapter: Adapter, texts: Texts, given: int, prompts: Sequence[str], decoding: Decoding
) -> None:
    """Raise CapacityError where so many tokens, the longest prompt and its answer do not fit."""
    asked, limit = _asked(adapter, texts, prompts), _limit(adapter)
    if given + asked + decoding.max_new_tokens > limit:
        parts = f"{given} tokens of the video, {asked} of the prompt"
        raise CapacityError(
            f"{parts} and {decoding.max_new_tokens} new ones are more than the {limit} that the "
            "language model reads",
            hint="use a shorter memory, shorten the prompt, or lower --max-new-tokens",
        )


def given(adapter: Adapter, texts: Texts, options: MemoryOptions, features: int) -> int:
    """How many tokens, about, the language model is given of a video with so many features."""
    slots = _slots(options, features)
    some = min(slots, _limit(adapter) // adapter.most + 1)  # no more can fit
    return prefix.length(adapter, texts, some, adapter.most) + (slots - some) * adapter.most


def bytes_for(adapter: Adapter, texts: Texts, size: int, work: Work) -> int:
    """Bytes for one frame encoded, one feature kept, one prompt remembered or one answer.

    Numbers have `size` bytes.
    """
    match work.kind:
        case "frame":
            return _frame(adapter.config.vision_config, adapter) * size
        case "feature":
            return adapter.most * adapter.width * (1 + adapter.levels) * size
        case "prompt":
            return 4096  # the memory does not depend on prompts
        case "answer":
            return _answer(adapter, texts, size, work)
        case _:
            assert_never(work.kind)


def _frame(vision: Any, adapter: Adapter) -> int:
    """Numbers held for a frame: one layer's input and output, queries, keys, values, wide part."""
    patches = 16 * adapter.most  # the projectors join four or sixteen
    heads = getattr(vision, "num_heads", None) or vision.num_attention_heads
    held = patches * (6 * vision.hidden_size + 2 * vision.intermediate_size)
    return int(held + heads * patches**2)


def _answer(adapter: Adapter, texts: Texts, size: int, work: Work) -> int:
    text, decoding = adapter.config.text_config, work.decoding
    length = work.context + _asked(adapter, texts, work.prompts) + decoding.max_new_tokens
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    wide = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    layers = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    reading = sum(layer != "linear_attention" for layer in layers)
    keys_and_values = 2 * reading * heads * wide * length
    # reordering beams copies them; scores of words come in float32
    numbers = 2 * keys_and_values * size + 4 * text.vocab_size * torch.float32.itemsize
    return int(decoding.beams * numbers)


def _slots(options: MemoryOptions, features: int) -> int:
    """How many slots the language model is given."""
    if options.gives_every_frame:
        return features
    return min(options.length + 1, features) if options.keeps_banks else 1


def _asked(adapter: Adapter, texts: Texts, prompts: Sequence[str]) -> int:
    """Tokens of the longest question."""
    return max(len(texts.ids(adapter.question(prompt))) for prompt in prompts)


def _limit(adapter: Adapter) -> int:
    return int(adapter.config.text_config.max_position_embeddings)
