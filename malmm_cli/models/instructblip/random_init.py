"""An untrained model in the published layout, with random weights and own tokenizers.

For the bundled model, for tests, and for measuring sizes without their weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from malmm_cli.checkpoints.state import write_state
from malmm_cli.models.instructblip.qformer import QFormer
from malmm_cli.models.vocabulary import LETTERS, llama_tokenizer

__all__ = ["SHARED", "shapes", "tiny_config", "write"]

SHARED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")  # T5's `shared`


def tiny_config(language: str) -> Any:
    """About a million parameters; `language` is "vicuna" (a decoder) or "flan-t5".

    `write` makes room for more words where its tokenizers have more.
    """
    text: dict[str, Any] = {
        "vicuna": {
            "model_type": "llama",
            "vocab_size": 8,
            "hidden_size": 128,  # 4 bits come in blocks of 64
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 1024,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 2,
        },
        "flan-t5": {
            "model_type": "t5",
            "vocab_size": 8,
            "d_model": 128,
            "d_kv": 32,
            "d_ff": 256,
            "num_layers": 2,
            "num_decoder_layers": 2,
            "num_heads": 4,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
            "decoder_start_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 0,
        },
    }[language]
    return transformers.InstructBlipConfig(
        vision_config={
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 64,
            "patch_size": 8,
        },
        qformer_config={
            "vocab_size": 8,
            "hidden_size": 96,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 192,
            "max_position_embeddings": 256,
            "encoder_hidden_size": 96,
        },
        text_config=text,
        num_query_tokens=8,
    )


def write(
    folder: Path,
    config: Any,
    words: Iterable[str],
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float16,
    positions: int = 0,
    max_shard_size: str = "5GB",
) -> None:
    """Write a random model of config into folder, which `load` then reads like any other.

    Both tokenizers know the words given, in lower case, and spell all others. `positions` rows of
    position table are written when there are any. The same seed gives the same files.
    """
    known = sorted(set(words))
    folder.mkdir(parents=True, exist_ok=True)
    if config.use_decoder_only_language_model:
        language = llama_tokenizer(known, bos_token="</s>", pad_token="</s>")
    else:
        language = _language_unigram(known)
    instruction = _instruction_wordpiece(known)
    for part, tokenizer in ((config.text_config, language), (config.qformer_config, instruction)):
        part.vocab_size = max(part.vocab_size, len(tokenizer))
    config.architectures = ["InstructBlipForConditionalGeneration"]
    language.save_pretrained(folder)
    instruction.save_pretrained(folder / "qformer_tokenizer")
    _write_json(folder / "config.json", _published(config))
    _write_json(folder / "preprocessor_config.json", _processor(config))
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: _random(name, shape, generator).to(dtype) for name, shape in shapes(config, positions)
    }
    # words come before letters and bytes to the untrained tongue too
    state["language_model.lm_head.weight"][_without_words(language, known)] *= 0.2
    write_state(folder, state, max_shard_size=max_shard_size)


def shapes(config: Any, positions: int = 0) -> Iterator[tuple[str, torch.Size]]:
    """Name and shape of every parameter, in the order of the published files."""
    decoder_only = config.use_decoder_only_language_model
    auto: Any = (
        transformers.AutoModelForCausalLM if decoder_only else transformers.AutoModelForSeq2SeqLM
    )
    width, seen = config.qformer_config.hidden_size, config.vision_config.hidden_size
    yield "query_tokens", torch.Size([1, config.num_query_tokens, width])
    if positions:
        yield "position_embedding.weight", torch.Size([positions, seen])
    with torch.device("meta"):
        parts: dict[str, nn.Module] = {
            "vision_model": transformers.InstructBlipVisionModel(config.vision_config),
            "qformer": QFormer(config.qformer_config),
            "language_projection": nn.Linear(width, config.text_config.hidden_size),
            "language_model": auto.from_config(config.text_config),
        }
    for prefix, part in parts.items():
        for name, parameter in part.state_dict().items():
            if not name.endswith(SHARED):
                yield f"{prefix}.{name}", parameter.shape


def _random(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Values large enough for what is seen to reach what is said."""
    if name.endswith("bias"):
        return torch.zeros(shape)
    if len(shape) == 1:  # the gain of a norm
        return torch.ones(shape)
    drawn = torch.randn(shape, generator=generator)
    embeds = any(part in name for part in ("embed", "query_tokens", "shared"))
    return drawn * (0.5 if embeds else shape[-1] ** -0.5)


def _without_words(tokenizer: Any, words: list[str]) -> list[int]:
    """Ids of all pieces that are not whole words."""
    whole = {f"▁{word}" for word in words}
    return [number for piece, number in tokenizer.get_vocab().items() if piece not in whole]


def _language_unigram(words: list[str]) -> Any:
    """A unigram model in T5's form: <pad> </s> <unk>, words, then letters at a higher price."""
    priced = [(f"▁{word}", -6.0) for word in words] + [(piece, -9.0) for piece in ["▁", *LETTERS]]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return transformers.T5Tokenizer(vocab=[*special, *priced], extra_ids=0)


def _instruction_wordpiece(words: list[str]) -> Any:
    """Word pieces in BERT's form: words, and letters to spell with."""
    letters = [letter for letter in LETTERS if letter == letter.lower()]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    pieces += [f"##{letter}" for letter in letters] + [w for w in words if w not in letters]
    return transformers.BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)})


def _published(config: Any) -> dict[str, Any]:
    """The configuration as the published files have it."""
    content: dict[str, Any] = config.to_dict()
    if not config.use_decoder_only_language_model:
        # transformers ties T5's embeddings when it reads a configuration, and scales the decoder's
        # output unless the file has this
        content["text_config"]["tie_word_embeddings"] = False
    return content


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _processor(config: Any) -> dict[str, Any]:
    side = config.vision_config.image_size
    return {
        "image_processor_type": "BlipImageProcessor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": side, "width": side},
    }
