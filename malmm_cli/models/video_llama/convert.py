"""The authors' checkpoints (VL_ and AL_ files) → folders that we load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from malmm_cli.checkpoints.layout import copy_beside_weights, read_config
from malmm_cli.checkpoints.others import (
    Converted,
    check_numbers,
    check_parts,
    gathered,
    read_tensors,
)
from malmm_cli.checkpoints.state import check, read_state, write_state, wrong_shapes
from malmm_cli.errors import ModelError
from malmm_cli.models.video_llama.config import Configuration, configuration
from malmm_cli.models.video_llama.load import check_state
from malmm_cli.models.video_llama.names import rename

__all__ = ["convert", "lay_over", "rename"]

# What a checkpoint holds as a whole or not at all; a name belongs to the first that it begins with.
_PARTS = {
    "video.": "the video branch",
    "audio.": "the audio branch",
    "vision_model.post_layernorm.": "ln_vision",
    "vision_model.": "the vision tower",
    "qformer.": "the Q-Former",
    "query_tokens": "its query tokens",
    "language_model.": "the language model",
}
_BASE = "check that --base is the model the checkpoint was trained from"


def convert(checkpoint: Path, base: Path, folder: Path) -> Converted:
    """Lay a VL_ or AL_ checkpoint over the model in `base`; the whole goes into the new `folder`.

    Configuration and tokenizer are those of base, which need not hear before. A checkpoint may
    hold everything, or trained parameters alone, but each part of the model whole or not at all.
    Raises ModelError, naming them, for tensors that are missing, that base does not know, or that
    were trained for another language model.
    """
    laid = rename(read_tensors(checkpoint), where=str(checkpoint))
    return lay_over(laid, base, folder, where=f"{checkpoint} over {base}")


def lay_over(laid: Mapping[str, Tensor], base: Path, folder: Path, *, where: str) -> Converted:
    """`convert` for tensors that were read and renamed already."""
    read_config(base)  # that base is of another kind says more than that no tensor fits
    state = read_state(base)
    config = configuration(base, state)
    if not laid:
        raise ModelError(f"{where}: the checkpoint contains no tensors", hint=_BASE)
    _check_widths(laid, config, where)
    known = state.keys() | _branch(laid, state, config)
    shapes = {name: value.shape for name, value in state.items()}
    unknown = laid.keys() - known
    check((), unknown, wrong_shapes(laid, shapes), where, hint=_BASE, most=len(unknown))
    check_parts(laid, known, _PARTS, where, hint=_BASE)
    whole = {**state, **laid}
    config = _hearing(config, laid)
    check_state(whole, config, base, where=where, hint=_BASE)
    check_numbers(whole, where)
    copy_beside_weights(base, folder)
    _write_config(folder, config)
    write_state(folder, whole)
    return Converted(
        taken=len(laid),
        kept=gathered(state.keys() - laid.keys(), state.keys()),
        positions=config.frame_positions,
    )


def _branch(
    laid: Mapping[str, Tensor], state: Mapping[str, Tensor], config: Configuration
) -> set[str]:
    """Names of the audio branch that a base without one gets: those of the video branch."""
    if config.hears or not any(name.startswith("audio.") for name in laid):
        return set()
    video = (name for name in state if name.startswith("video."))
    return {name.replace("video.", "audio.", 1) for name in video}


def _hearing(config: Configuration, laid: Mapping[str, Tensor]) -> Configuration:
    """The configuration with an audio branch of the sizes that are laid over it."""
    table, queries = (
        laid.get(f"audio.{name}") for name in ("position_embedding.weight", "query_tokens")
    )
    if config.hears or table is None or queries is None:
        return config
    content: dict[str, Any] = config.video_qformer_config.to_dict()
    content["encoder_hidden_size"] = table.shape[-1]
    return replace(
        config,
        audio_qformer_config=type(config.video_qformer_config).from_dict(content),
        audio_query_tokens=queries.shape[1],
        clip_positions=len(table),
    )


def _check_widths(laid: Mapping[str, Tensor], config: Configuration, where: str) -> None:
    """Raise ModelError for a branch that was trained for a language model of another width."""
    width = config.text_config.hidden_size
    for branch in ("video", "audio"):
        bias = laid.get(f"{branch}.projection.bias")
        if bias is not None and bias.shape != (width,):
            raise ModelError(
                f"{where}: the checkpoint's {branch} branch is for a language model of width "
                f"{len(bias.flatten())}, but the base's has {width}",
                hint="published 7B models have 4096, 13B models 5120: use a --base of that size",
            )


def _write_config(folder: Path, config: Configuration) -> None:
    text = json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
