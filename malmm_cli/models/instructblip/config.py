"""The configuration in a model's folder → transformers' own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import transformers

from malmm_cli.checkpoints.layout import read_json
from malmm_cli.models.config import checked_config, token_ids, valid_config

__all__ = ["configuration"]

# The parts of a configuration, and where the names of their tensors begin.
_PARTS = {
    "vision_config": "vision_model.",
    "qformer_config": "qformer.",
    "text_config": "language_model.",
}


def configuration(folder: Path, names: Iterable[str]) -> Any:
    """The configuration of a folder whose weights have these names; raises ModelError."""
    content = {**checked_config(folder, names, _PARTS), "model_type": "instructblip"}
    with valid_config(folder):
        config: Any = transformers.InstructBlipConfig.from_dict(content)
        _take_ids(config, folder)
        return config


def _take_ids(config: Any, folder: Path) -> None:
    """Let the language model's configuration have the ids that generation_config.json adds."""
    path, text = folder / "generation_config.json", config.text_config
    more = read_json(path) if os.path.lexists(path) else {}
    text.eos_token_id = [*token_ids(text.eos_token_id), *token_ids(more.get("eos_token_id"))]
    if config.use_decoder_only_language_model:
        text.decoder_start_token_id = None
    else:
        known = [more.get("decoder_start_token_id"), getattr(text, "decoder_start_token_id", None)]
        start = next((value for value in known if value is not None), text.pad_token_id)
        if type(start) is not int or not 0 <= start < text.vocab_size:
            raise ValueError(
                f"decoder_start_token_id is {str(start)[:80]}, which is not a token id"
            )
        text.decoder_start_token_id = start
