"""Untrained models of each architecture in the published layout, with a tokenizer of their own.

For tests and for measuring sizes without the weights.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from malmm_cli.checkpoints.state import write_state
from malmm_cli.models.vlm.load import ADAPTERS

__all__ = ["tiny_config", "write"]

_TEXT: dict[str, Any] = {
    "vocab_size": 8,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
_QWEN_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "depth": 4,
    "num_heads": 2,
    "patch_size": 8,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "num_position_embeddings": 64,
    "out_hidden_size": 64,
}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_CONFIGS: dict[str, dict[str, Any]] = {
    "qwen3_vl": {
        "text_config": {
            **_TEXT,
            "rope_parameters": {**_ROPE, "mrope_section": [4, 2, 2], "mrope_interleaved": True},
        },
        "vision_config": {**_QWEN_VISION, "deepstack_visual_indexes": [0, 1, 2]},
    },
    "qwen3_5": {
        "text_config": {
            **_TEXT,
            "rope_parameters": {
                **_ROPE,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
                "partial_rotary_factor": 1.0,
            },
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_conv_kernel_dim": 4,
            "layer_types": [*["linear_attention"] * 2, "full_attention", "linear_attention"],
        },
        "vision_config": _QWEN_VISION,
    },
    "smolvlm": {
        "text_config": {**_TEXT, "model_type": "llama"},
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 8,
        },
        "scale_factor": 2,
    },
    "internvl": {
        "text_config": {**_TEXT, "model_type": "qwen2"},
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": [64, 64],
            "patch_size": [8, 8],
        },
        "downsample_ratio": 0.5,
        "image_seq_length": 16,
    },
}
# the tokens that stand for pictures in transformers' own prompts
_PICTURES = {
    "qwen3_vl": ("<|video_pad|>", "<|image_pad|>"),
    "qwen3_5": ("<|video_pad|>", "<|image_pad|>"),
    "smolvlm": ("<image>", "<video>"),
    "internvl": ("<IMG_CONTEXT>", "<video>"),
}
# the tokens that transformers' processors know by these names
_NAMED = {
    "internvl": {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
}


def tiny_config(model_type: str) -> Any:
    """Some hundred thousand parameters; `write` makes room for the words of its tokenizer."""
    kind = getattr(transformers, ADAPTERS[model_type].kind)
    content = json.loads(json.dumps(_CONFIGS[model_type]))
    return kind.config_class.from_dict({**content, "tie_word_embeddings": True})


def write(
    folder: Path,
    config: Any,
    words: Iterable[str],
    *,
    bare: Iterable[str] = (),
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "5GB",
) -> None:
    """Write a random model of config into folder, which `load` then reads like any other.

    Its tokenizer knows the words given after a space, and those in `bare` without one; it spells
    all others. The same seed gives the same files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = config.model_type
    tokenizer = _tokenizer(name, sorted(set(words)), sorted(set(bare)))
    known = tokenizer.get_vocab()
    text = config.text_config
    text.vocab_size = max(text.vocab_size, len(tokenizer))
    text.eos_token_id = known[ADAPTERS[name].marks[0]]
    picture, *_ = _PICTURES[name]
    for key in ("video_token_id", "image_token_id"):
        setattr(config, key, known[picture])
    if name.startswith("qwen"):
        config.image_token_id = known["<|image_pad|>"]
        config.vision_start_token_id = known["<|vision_start|>"]
        config.vision_end_token_id = known["<|vision_end|>"]
    kind = getattr(transformers, ADAPTERS[name].kind)
    config.architectures = [ADAPTERS[name].kind]
    with torch.device("meta"):  # a model that is built would hold all numbers in single precision
        net = kind(config)
    words_in = net.get_input_embeddings().weight
    state = {}
    for key, value in net.named_parameters():  # tied ones once
        drawn = _drawn(key, value.shape, seed)
        if value is words_in:  # an answer does not end by chance
            drawn[text.eos_token_id] = 0.0
        state[key] = drawn.to(dtype)
    write_state(folder, state, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(folder)
    _write_json(folder / "config.json", config.to_dict())
    _write_json(folder / "preprocessor_config.json", _processor(ADAPTERS[name](config)))
    (folder / "chat_template.jinja").write_text(_template(name), encoding="utf-8")


def _drawn(name: str, shape: torch.Size, seed: int) -> Tensor:
    """Values large enough for what is seen to reach what is said; a name's are always the same."""
    generator = torch.Generator().manual_seed(seed + zlib.crc32(name.encode()))
    drawn = torch.randn(shape, generator=generator)
    if len(shape) == 1:  # gains are about 1, everything else about 0
        return drawn * 0.1 + name.endswith("weight")
    embeds = "embed" in name and "patch" not in name
    # a recurrent layer amplifies what single precision rounds off
    times = 1.0 if "linear_attn" in name else 2.0
    return drawn * (0.3 if embeds else times * shape[1:].numel() ** -0.5)


def _tokenizer(name: str, words: list[str], bare: list[str]) -> Any:
    """Byte-level pairs as all of these models have; every beginning of a word is a piece."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: dict[tuple[str, str], str] = {}
    for word in [*(f"Ġ{word}" for word in words), *bare]:
        for end in range(2, len(word) + 1):
            merges[word[: end - 1], word[end - 1]] = word[:end]
    known = dict.fromkeys([*letters, *merges.values()])
    vocab = {piece: number for number, piece in enumerate(known)}
    made = Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    marks = ["<|endoftext|>", *ADAPTERS[name].marks, *_PICTURES[name]]
    made.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    last = ADAPTERS[name].marks[0]
    kind: Any = transformers.PreTrainedTokenizerFast
    return kind(
        tokenizer_object=made,
        eos_token=last,
        pad_token="<|endoftext|>",
        extra_special_tokens=_NAMED.get(name, {}),
    )


def _template(name: str) -> str:
    """The form of a conversation, as the published templates have it."""
    if name == "smolvlm":
        turn = "{{ message['role'] | capitalize }}: "
        opened, closed, answer = f"<|im_start|>{turn}", "<end_of_utterance>\n", "Assistant:"
        video = "<video>"
    else:
        opened, closed = "<|im_start|>{{ message['role'] }}\n", "<|im_end|>\n"
        answer = "<|im_start|>assistant\n"
        video = "<video>\n" if name == "internvl" else _PADS
    if name == "qwen3_5":
        answer += "<think>\n\n</think>\n\n"
    return (
        "{% for message in messages %}" + opened + "{% for part in message['content'] %}"
        "{% if part['type'] == 'video' %}" + video + "{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}" + closed + "{% endfor %}"
        "{% if add_generation_prompt %}" + answer + "{% endif %}"
    )


_PADS = "<|vision_start|><|video_pad|><|vision_end|>"


def _processor(adapter: Any) -> dict[str, Any]:
    mean, std = adapter.pixels
    return {
        "image_mean": list(mean),
        "image_std": list(std),
        "rescale_factor": 1 / 255,
        "do_rescale": True,
        "do_normalize": True,
        **adapter.processor,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
