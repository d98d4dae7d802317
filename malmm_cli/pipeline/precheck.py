"""What can be found wrong with a model before torch is imported, which takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from malmm_cli import hub
from malmm_cli.checkpoints.layout import read_config
from malmm_cli.errors import CapacityError
from malmm_cli.settings import Settings

__all__ = ["check_model"]


def check_model(name: str, settings: Settings) -> None:
    """Check the files of a model that is on this disk, and that its context holds a text.

    Raises UsageError for a name that no model has, ModelError for files that cannot be used,
    CapacityError for a text that is too long. Loading finds the rest.
    """
    folder = hub.describe(name)["folder"]
    limit = _context(Path(folder)) if folder else None
    new = settings.decoding.max_new_tokens
    if limit is not None and new >= limit:
        raise CapacityError(
            f"--max-new-tokens {new}: the language model reads {limit} tokens in all, "
            "those of the video and the prompt included",
            hint="use a smaller number, or leave it out",
        )


def _context(folder: Path) -> int | None:
    """Tokens that a decoder reads, where config.json says so; None for other language models."""
    text: Any = read_config(folder).get("text_config")
    if not isinstance(text, dict) or text.get("is_encoder_decoder"):
        return None
    limit = text.get("max_position_embeddings")
    return limit if isinstance(limit, int) else None
