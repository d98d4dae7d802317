"""A folder of weights → a Video-LLaMA model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers
from torch import Tensor

from malmm_cli.checkpoints.layout import DERIVED, read_config, remedy
from malmm_cli.checkpoints.preprocessor import Pixels, read_pixels
from malmm_cli.checkpoints.state import check, fill, read_state, subset, wrong_shapes
from malmm_cli.errors import ModelError
from malmm_cli.models.config import bounded, token_ids, valid_config
from malmm_cli.models.device import language_options
from malmm_cli.models.theirs import load_theirs
from malmm_cli.models.tokens import read_tokenizer
from malmm_cli.models.video_llama.config import Configuration, configuration
from malmm_cli.models.video_llama.model import VideoLlama
from malmm_cli.models.video_llama.parts import THEIRS, shapes
from malmm_cli.models.video_llama.prompts import FORMS
from malmm_cli.models.video_llama.texts import Texts

__all__ = ["build", "check_state", "load", "read_texts"]


def load(
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    quantize: str | None = None,
    spread: bool = False,
) -> VideoLlama:
    """The model in a folder, ready to run; raises ModelError.

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
    config = configuration(folder, state)
    check_state(state, config, folder, where=str(folder))
    texts = read_texts(folder, config)
    with valid_config(folder):
        model = build(
            config,
            state,
            texts,
            dtype=dtype,
            pixels=pixels,
            name=str(folder),
            language_options=options,
        )
    model.move_to(device)
    if not options:
        model.language_model.to(device)
    return model


def check_state(
    state: Mapping[str, Tensor], config: Configuration, folder: Path, *, where: str, **how: Any
) -> None:
    """Raise ModelError unless state is all that a configuration needs. Nothing is built for it.

    `how` goes to `check`.
    """
    with valid_config(folder), bounded(len(state)):
        expected = dict(shapes(config))
    wrong = wrong_shapes(state, expected)
    check(expected.keys() - state.keys(), state.keys() - expected.keys(), wrong, where, **how)


def read_texts(folder: Path, config: Configuration) -> Texts:
    """The tokenizer in a folder; ModelError where it is not one of LLaMA's."""
    tokenizer = read_tokenizer(folder, "the language model's tokenizer in the folder")
    rows = config.text_config.vocab_size
    most = max(tokenizer.get_vocab().values(), default=-1) + 1
    if most > rows:
        raise ModelError(
            f"{folder}: its tokenizer has {most} tokens, but the model has {rows}",
            hint=remedy(folder),
        )
    if "▁" not in tokenizer.get_vocab() or not hasattr(tokenizer, "backend_tokenizer"):
        raise ModelError(
            f"{folder}: the tokenizer is not one of LLaMA's, which write a space as ▁",
            hint=remedy(folder),
        )
    return Texts(tokenizer, FORMS[config.conversation], token_ids(config.text_config.eos_token_id))


def build(
    config: Configuration,
    state: dict[str, Tensor],
    texts: Texts,
    *,
    dtype: torch.dtype = torch.float32,
    pixels: Pixels = Pixels(),  # noqa: B008 (a tuple)
    name: str = "state dict",
    language_options: Mapping[str, Any] = MappingProxyType({}),
) -> VideoLlama:
    """A model of config with the parameters of state.

    `language_options` go to transformers when it loads the language model.
    """

    def theirs(prefix: str, kind: Any, part: Any, options: Mapping[str, Any]) -> Any:
        options = {"dtype": dtype, **options}
        return load_theirs(kind, part, subset(state, prefix), f"{name}: {prefix}", options)

    encoder, reader = transformers.Blip2VisionModel, transformers.Blip2QFormerModel
    parts = {
        "vision_model": theirs("vision_model", encoder, config.vision_config, {}),
        "qformer": theirs("qformer", reader, config.qformer_config, {}),
        "video_qformer": theirs("video.qformer", reader, config.video_qformer_config, {}),
        "language_model": theirs(
            "language_model", transformers.LlamaForCausalLM, config.text_config, language_options
        ),
    }
    if config.hears:
        parts["audio_qformer"] = theirs("audio.qformer", reader, config.audio_qformer_config, {})
    model = VideoLlama(config, parts, texts, pixel_mean=pixels.mean, pixel_std=pixels.std)
    fill(_joints(model.state_dict()), _joints(state), name)
    model.move_to(dtype)
    return model.eval().requires_grad_(False)


def _joints(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Everything but transformers' own models."""
    return {name: value for name, value in state.items() if not name.startswith(THEIRS)}
