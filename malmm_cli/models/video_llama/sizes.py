"""How much the language model reads of a memory, and how many bytes are held at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

import torch

from malmm_cli.errors import CapacityError
from malmm_cli.models.base import Work
from malmm_cli.models.video_llama import prompts as wording
from malmm_cli.models.video_llama.config import Configuration
from malmm_cli.models.video_llama.texts import Texts
from malmm_cli.settings import Decoding, MemoryOptions

__all__ = ["bytes_for", "check", "check_read", "visual_tokens"]

# Seconds of a picture in a prompt, as long as they usually are.
_SECOND = 5999.9


def visual_tokens(config: Configuration, options: MemoryOptions, features: int) -> int:
    """How many tokens the language model is given of the pictures of so many features."""
    return config.video_query_tokens * (features if options.gives_every_frame else 1)


def check(
    config: Configuration,
    texts: Texts,
    prompts: Sequence[str],
    options: MemoryOptions,
    decoding: Decoding,
    features: int,
) -> None:
    """Raise CapacityError where media, the longest prompt and its answer are too many tokens."""
    limit = config.text_config.max_position_embeddings
    visual = visual_tokens(config, options, features)
    heard = config.audio_query_tokens if config.hears else 0
    slots = min(_slots(options, features), limit)  # no more of their times can fit
    given = max(_words(texts, prompt, slots) for prompt in prompts)
    _refuse(visual + heard, given, decoding.max_new_tokens, limit, options)


def check_read(config: Configuration, media: int, words: int, decoding: Decoding) -> None:
    """Raise CapacityError where so many tokens of media and words leave no room for an answer."""
    limit = config.text_config.max_position_embeddings
    _refuse(media, words, decoding.max_new_tokens, limit, MemoryOptions())


def _refuse(media: int, words: int, new: int, limit: int, options: MemoryOptions) -> None:
    whole = media + words + new
    if whole <= limit:
        return
    hint = "shorten the prompt, or lower --max-new-tokens"
    if options.gives_every_frame:
        hint = "use a memory: --memory 32 gives as few tokens for any length"
    raise CapacityError(
        f"{media} tokens of the media, {words} prompt tokens and {new} new tokens make {whole}; "
        f"the language model reads {limit}",
        hint=hint,
    )


def _words(texts: Texts, prompt: str, slots: int) -> int:
    """Tokens of a prompt with the times of so many slots; a second medium takes no more."""
    seconds = [_SECOND] * slots
    text = wording.message(prompt, seconds, heard=False)
    system = wording.system(seconds, heard=False)
    return sum(map(len, texts.pieces(wording.pieces(texts.form, system, (), text))))


def _slots(options: MemoryOptions, features: int) -> int:
    """How many pictures a prompt has the times of."""
    if options.gives_every_frame:
        return features
    return min(options.length + 1, features) if options.keeps_visual else 1


def bytes_for(config: Configuration, texts: Texts, size: int, work: Work) -> int:
    """Bytes for one frame encoded, one feature kept, one prompt remembered or one answer.

    Numbers have `size` bytes.
    """
    match work.kind:
        case "frame":
            return _frame(config) * size
        case "feature":
            return int(config.query_tokens * config.qformer_config.hidden_size * size)
        case "prompt":
            return _prompt(config, size, work)
        case "answer":
            return _answer(config, texts, size, work)
        case _:
            assert_never(work.kind)


def _frame(config: Configuration) -> int:
    """Numbers held for a frame: one layer's input and output, queries, keys, values, wide part."""
    vision = config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2 + 1
    held = patches * (6 * vision.hidden_size + 2 * vision.intermediate_size)
    return int(held + vision.num_attention_heads * patches**2)


def _prompt(config: Configuration, size: int, work: Work) -> int:
    """One context is the same for all prompts; without a memory, it grows with the video."""
    media = visual_tokens(config, work.memory, work.features)
    return int(4096 + media * config.text_config.hidden_size * size)


def _answer(config: Configuration, texts: Texts, size: int, work: Work) -> int:
    text: Any = config.text_config
    words = max(_words(texts, prompt, config.frame_positions + 1) for prompt in work.prompts)
    length = work.context + words + work.decoding.max_new_tokens
    wide = text.num_key_value_heads * (text.hidden_size // text.num_attention_heads)
    keys_and_values = 2 * text.num_hidden_layers * wide * length
    # reordering beams copies them; scores of words come in float32
    numbers = 2 * keys_and_values * size + 4 * text.vocab_size * torch.float32.itemsize
    return int(work.decoding.beams * numbers)
