"""What a folder says of pixels and prompts, held against what the adapter does.

malmm makes pixels and prompts by itself. A folder that asks for something else is refused by name,
rather than read in a way that its model was not trained for.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from malmm_cli.checkpoints.layout import open_regular, read_json, remedy
from malmm_cli.checkpoints.preprocessor import BOTH, PICTURES, VIDEOS, read_pixels
from malmm_cli.errors import ModelError
from malmm_cli.models.vlm.adapter import Adapter

__all__ = ["check_processor", "check_template", "template_of"]

TEMPLATES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json", BOTH)
_LARGEST = 1_000_000  # bytes of a template


def check_processor(folder: Path, adapter: Adapter) -> None:
    """Raise ModelError where the folder's pixels or sizes are not the adapter's."""
    for name, told, made in zip(
        ("image_mean", "image_std"), read_pixels(folder), adapter.pixels, strict=True
    ):
        if not all(math.isclose(x, y, abs_tol=1e-4) for x, y in zip(told, made, strict=True)):
            raise _differs(folder, name, told, list(made))
    for key, expected in adapter.processor.items():
        for path, told in _told(folder, key):
            if told != expected:
                raise _differs(path, key, told, expected)


def check_template(folder: Path, adapter: Adapter) -> None:
    """Raise ModelError where no template is there, or it lacks what the prompt is made of."""
    found = _templates(folder)
    if not found:
        raise ModelError(
            f"{folder}: has no chat template, so it may not be a model that answers",
            hint="use a model that was trained to follow instructions",
        )
    for name, text in found.items():
        if lacking := [mark for mark in adapter.template if mark not in text]:
            raise ModelError(
                f"{folder / name}: lacks {', '.join(lacking)}: not the form of {adapter.kind}",
                hint="malmm writes that model's own prompt, which this template contradicts",
            )


def template_of(folder: Path) -> str:
    """The chat template that transformers reads of a folder."""
    return next(iter(_templates(folder).values()))


def _templates(folder: Path) -> dict[str, str]:
    """The templates in a folder by their files, that which comes before the others first."""
    texts = {name: _template(folder / name) for name in TEMPLATES if (folder / name).exists()}
    return {name: text for name, text in texts.items() if text}


def _differs(path: Path, key: str, told: Any, made: Any) -> ModelError:
    return ModelError(
        f"{path}: {key} is {str(told)[:80]}, but this kind of model takes {made}",
        hint=f"use the published files: {remedy(path if path.is_dir() else path.parent)}",
    )


def _told(folder: Path, key: str) -> Iterator[tuple[Path, Any]]:
    """What the folder's files say of a key, themselves or in their parts."""
    for name in (BOTH, VIDEOS, PICTURES):
        if not os.path.lexists(folder / name):
            continue
        content = read_json(folder / name)
        for part in (
            content,
            *(content.get(one) for one in ("video_processor", "image_processor")),
        ):
            if isinstance(part, dict) and part.get(key) is not None:
                yield folder / name, part[key]


def _template(path: Path) -> str:
    """The template in a file, or nothing."""
    if path.suffix == ".json":
        told = read_json(path).get("chat_template")
        return told if isinstance(told, str) else json.dumps(told) if told else ""
    with open_regular(path, _LARGEST) as file:
        return file.read().decode("utf-8", "replace")
