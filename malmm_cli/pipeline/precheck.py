"""What can be found wrong with a model before torch is imported, which takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from malmm_cli import hub
from malmm_cli.checkpoints.layout import read_config
from malmm_cli.errors import CapacityError
from malmm_cli.models.placement import check_lora, check_packages, dtype_on_cpu, is_cpu
from malmm_cli.pipeline.defaults import defaults_of
from malmm_cli.processes.machine import free_memory
from malmm_cli.settings import Settings

__all__ = ["check_absent", "check_model", "check_training"]


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


def check_absent(
    name: str, *, device: str, dtype: str, quantize: str | None, offline: bool
) -> None:
    """Check whether a model that is not on this disk can be had, and the packages that any needs.

    Raises UsageError for a package that is not installed, CapacityError for a model that does not
    fit this machine, then ModelError without the network. What a GPU holds is known only with
    torch: where there may be one, loading tells both.
    """
    check_packages(quantize)
    model = hub.describe(name, files=False)
    if model["here"]:
        return
    parameters = model["parameters"]
    if parameters is not None:
        if not is_cpu(device):
            return
        free = free_memory()
        if dtype == "auto":
            dtype = dtype_on_cpu(parameters, free)
        hub.check_memory(name, parameters, dtype, free, quantize)
    if hub.is_offline(asked=offline):
        hub.locate(name, offline=True)  # says what is missing


def check_training(name: str, given: Mapping[str, Any]) -> None:
    """Check options of training that not every family has, by `Defaults.training`.

    Raises UsageError for those that the model's lacks, as far as it is known before it is loaded,
    and where a package is missing.
    """
    defaults_of(name).check_training(given)
    check_lora(given["lora"])


def _context(folder: Path) -> int | None:
    """Tokens that a decoder reads, where config.json says so; None for other language models."""
    text: Any = read_config(folder).get("text_config")
    if not isinstance(text, dict) or text.get("is_encoder_decoder"):
        return None
    limit = text.get("max_position_embeddings")
    return limit if isinstance(limit, int) else None
