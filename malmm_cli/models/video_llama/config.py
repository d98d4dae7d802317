"""The configuration in a folder: transformers' own for each part, and how they are joined."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from malmm_cli.checkpoints.layout import read_json
from malmm_cli.models.config import checked_config, token_ids, valid_config
from malmm_cli.models.video_llama.prompts import FORMS

__all__ = ["Configuration", "configuration"]

_QFORMER = transformers.Blip2QFormerConfig
_CLASSES: dict[str, Any] = {
    "vision_config": transformers.Blip2VisionConfig,
    "qformer_config": _QFORMER,
    "video_qformer_config": _QFORMER,
    "audio_qformer_config": _QFORMER,
    "text_config": transformers.LlamaConfig,
}
# The parts of a configuration, and where the names of their tensors begin.
_PARTS = {
    "vision_config": "vision_model.",
    "qformer_config": "qformer.",
    "video_qformer_config": "video.qformer.",
    "audio_qformer_config": "audio.qformer.",
    "text_config": "language_model.",
}
_NUMBERS = (
    *("query_tokens", "video_query_tokens", "audio_query_tokens"),
    *("frame_positions", "clip_positions"),
)


@dataclass(frozen=True)
class Configuration:
    """Sizes of all parts; `conversation` names the form of prompts, one of `prompts.FORMS`.

    Query tokens are those of the Q-Formers, 32, 32 and 8 in the published models;
    `frame_positions` and `clip_positions` are the rows of the two tables, 32 and 8.
    `audio_qformer_config` is None in a model that does not hear.
    """

    conversation: str
    vision_config: Any
    qformer_config: Any
    video_qformer_config: Any
    text_config: Any
    audio_qformer_config: Any = None
    query_tokens: int = 32
    video_query_tokens: int = 32
    audio_query_tokens: int = 8
    frame_positions: int = 32
    clip_positions: int = 8

    @property
    def hears(self) -> bool:
        """Whether it has the parts that read sound."""
        return self.audio_qformer_config is not None

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Configuration:
        """Read what `to_dict` made; raises ValueError, or what transformers raises."""
        form = content.get("conversation")
        if form not in FORMS:
            raise ValueError(f"conversation is {str(form)[:40]!r}, not one of {', '.join(FORMS)}")
        numbers = {name: content[name] for name in _NUMBERS if name in content}
        for name, number in numbers.items():
            if type(number) is not int or number < 1:
                raise ValueError(f"{name} is {str(number)[:40]} but must be at least 1")
        parts = {
            name: kind.from_dict(content[name])
            for name, kind in _CLASSES.items()
            if content.get(name) is not None or name != "audio_qformer_config"
        }
        return Configuration(form, **parts, **numbers)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of config.json."""
        parts = {name: getattr(self, name) for name in _CLASSES}
        return {
            "model_type": "video_llama",
            "conversation": self.conversation,
            **{name: part.to_dict() for name, part in parts.items() if part is not None},
            **{name: getattr(self, name) for name in _NUMBERS},
        }


def configuration(folder: Path, names: Iterable[str]) -> Configuration:
    """The configuration of a folder whose weights have these names; raises ModelError."""
    content = checked_config(folder, names, _PARTS)
    with valid_config(folder):
        config = Configuration.from_dict(content)
        path, text = folder / "generation_config.json", config.text_config
        more = read_json(path) if os.path.lexists(path) else {}
        ends = [*token_ids(text.eos_token_id), *token_ids(more.get("eos_token_id"))]
        text.eos_token_id = [end for end in dict.fromkeys(ends) if 0 <= end < text.vocab_size]
        return config
