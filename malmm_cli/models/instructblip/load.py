"""A folder of weights → an InstructBLIP model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers
from torch import Tensor

from malmm_cli.checkpoints.layout import (
    DERIVED,
    FAMILIES,
    read_config,
    remedy,
)
from malmm_cli.checkpoints.preprocessor import Pixels, read_pixels
from malmm_cli.checkpoints.state import check, fill, read_state, subset, wrong_shapes
from malmm_cli.errors import ModelError
from malmm_cli.models.config import bounded, token_ids, valid_config
from malmm_cli.models.device import language_options
from malmm_cli.models.instructblip import random_init
from malmm_cli.models.instructblip.config import configuration
from malmm_cli.models.instructblip.model import InstructBlip
from malmm_cli.models.instructblip.tokenizers import Texts
from malmm_cli.models.theirs import load_theirs
from malmm_cli.models.tokens import read_tokenizer

__all__ = ["InstructBlip", "build", "check_state", "load"]

# The folder of the Q-Former's tokenizer.
(QFORMER_TOKENIZER,) = FAMILIES["instructblip"].folders

NEEDED = (
    "the language model's tokenizer in the folder, the Q-Former's in its subfolder "
    f"{QFORMER_TOKENIZER}"
)


def load(
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    quantize: str | None = None,
    spread: bool = False,
) -> InstructBlip:
    """The model in a folder of the published layout, ready to run; raises ModelError.

    Every parameter is loaded by name and shape: none missing, none left over. The language model
    alone may be stored in fewer bits (`quantize` "8bit" or "4bit"), or be spread over all devices
    of the machine (`spread`); both need packages that malmm does not always bring.
    """
    folder = Path(folder)
    options = language_options(device, dtype, quantize=quantize, spread=spread)
    vision = read_config(folder).get("vision_config")
    side = vision.get("image_size", 224) if isinstance(vision, dict) else 224
    pixels = read_pixels(folder, (side, side))
    state = {
        name: value for name, value in read_state(folder).items() if not name.endswith(DERIVED)
    }
    config = check_state(state, folder, where=str(folder))
    language, instruction = (
        read_tokenizer(folder, NEEDED),
        read_tokenizer(folder / QFORMER_TOKENIZER, NEEDED),
    )
    _check_vocabularies(config, language, instruction, folder)
    with valid_config(folder):
        model = build(
            config,
            state,
            instruction,
            language,
            dtype=dtype,
            pixels=pixels,
            name=folder,
            language_options=options,
        )
    if not model.texts.ends:
        raise ModelError(f"{folder}: the tokenizer has no end token", hint=remedy(folder))
    model.move_to(device)
    if not options:
        model.language_model.to(device)
    return model


def check_state(state: Mapping[str, Tensor], folder: Path, *, where: str, **how: Any) -> Any:
    """The configuration in folder; ModelError unless state fits it. Nothing is built for it.

    A language model whose head is its embeddings may lack the head. `how` goes to `check`.
    """
    config = configuration(folder, state)
    table = state.get("position_embedding.weight")
    with valid_config(folder), bounded(len(state)):
        rows = 0 if table is None else [*table.shape, 1][0]
        expected = dict(random_init.shapes(config, rows))
    tied = {"language_model.lm_head.weight"} if config.text_config.tie_word_embeddings else set()
    given = {name for name in state if not name.endswith(random_init.SHARED)}
    wrong = wrong_shapes(state, expected)
    check(expected.keys() - given - tied, given - expected.keys(), wrong, where, **how)
    return config


def build(
    config: Any,
    state: dict[str, Tensor],
    instruction_tokenizer: Any,
    language_tokenizer: Any,
    *,
    dtype: torch.dtype = torch.float32,
    pixels: Pixels = Pixels(),  # noqa: B008 (a tuple)
    name: Path = Path("state dict"),
    language_options: Mapping[str, Any] = MappingProxyType({}),
) -> InstructBlip:
    """A model of config with the parameters of state; both tokenizers are transformers' own.

    `language_options` go to transformers when it loads the language model.
    """
    table = state.get("position_embedding.weight")
    decoder_only = bool(config.use_decoder_only_language_model)
    languages = (
        transformers.MODEL_FOR_CAUSAL_LM_MAPPING
        if decoder_only
        else transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    )

    def theirs(prefix: str, kind: Any, part: Any, options: Mapping[str, Any]) -> Any:
        options = {"dtype": dtype, **options}
        return load_theirs(kind, part, subset(state, prefix), f"{name}: {prefix}", options)

    encoder, language = transformers.InstructBlipVisionModel, languages[type(config.text_config)]
    model = InstructBlip(
        config,
        theirs("vision_model", encoder, config.vision_config, {}),
        theirs("language_model", language, config.text_config, language_options),
        Texts(
            instruction_tokenizer,
            language_tokenizer,
            decoder_only=decoder_only,
            positions=config.qformer_config.max_position_embeddings,
            ends=token_ids(config.text_config.eos_token_id),
        ),
        positions=0 if table is None else len(table),
        pixel_mean=pixels.mean,
        pixel_std=pixels.std,
    )
    fill(_ours(model.state_dict()), _ours(state), str(name))
    model.move_to(dtype)
    return model.eval().requires_grad_(False)


def _ours(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Everything but the image encoder and the language model."""
    theirs = ("vision_model.", "language_model.")
    return {name: value for name, value in state.items() if not name.startswith(theirs)}


def _check_vocabularies(config: Any, language: Any, instruction: Any, folder: Path) -> None:
    """Raise ModelError if a tokenizer knows words that have no embedding."""
    for what, words, rows in (
        ("tokenizer", language, config.text_config.vocab_size),
        (QFORMER_TOKENIZER, instruction, config.qformer_config.vocab_size),
    ):
        # what it puts around a text need be none of its words
        most = max([*words.get_vocab().values(), *words("a")["input_ids"]], default=-1) + 1
        if most > rows:
            raise ModelError(
                f"{folder}: its {what} has {most} tokens, but the model has {rows}",
                hint=remedy(folder),
            )
