"""config.json, with its sizes checked against the weights.

Whatever a configuration asks for, nothing larger than the weights is built for it: building 10^9
layers would take all memory, even without their numbers.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from malmm_cli.checkpoints.layout import read_config, remedy
from malmm_cli.errors import MalmmError, ModelError, first_line

__all__ = ["bounded", "checked_config", "quiet", "token_ids", "valid_config"]

# Keys that count layers, in any family of language models.
_COUNTS = {
    *("num_hidden_layers", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers"),
    *("n_layer", "n_layers", "num_blocks", "depth", "layers"),
}
_LAYER = re.compile(r"\.(\d{1,9})\.")

# Parameters that a module may have beside those that are stored: second names, and what is tied.
_UNSTORED = 16

# Keys that say how large a part is, in any family.
_SIZES = {
    *("hidden_size", "intermediate_size", "vocab_size", "patch_size", "image_size", "head_dim"),
    *("encoder_hidden_size", "num_attention_heads", "num_key_value_heads", "num_channels"),
    *("d_model", "d_ff", "d_kv", "num_heads", "cross_attention_frequency"),
}

# Not part of a model: the machine decides which packages compute, malmm what is returned, the
# tokenizers the special tokens, and the family the rest.
_IGNORED = (
    *("_attn_implementation", "attn_implementation", "experts_implementation"),
    *("output_attentions", "output_hidden_states", "return_dict", "is_encoder_decoder"),
    "bos_token_id",
)


def checked_config(folder: Path, names: Iterable[str], parts: Mapping[str, str]) -> dict[str, Any]:
    """The content of config.json, for weights that have these names; raises ModelError.

    `parts` are the parts of a configuration, by how the names of their tensors begin.
    """
    content = read_config(folder)
    path = folder / "config.json"
    _check_layers(content, parts, list(names), path)
    for part in (content, *(content.get(part) for part in parts)):
        if isinstance(part, dict):
            for key in _IGNORED:
                part.pop(key, None)
    with valid_config(folder):
        for name in parts:
            _check_sizes(name, content.get(name))
    return content


def token_ids(value: Any) -> list[int]:
    """One id, several or none, as configurations give them; ValueError for anything else."""
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(number) is int for number in ids):
        raise ValueError(f"eos_token_id is {str(value)[:80]}, which is not a token id")
    return ids


def _check_layers(
    content: dict[str, Any], parts: Mapping[str, str], names: list[str], path: Path
) -> None:
    """Raise ModelError where a part has more layers than the weights have names for."""
    for part, prefix in parts.items():
        values = content.get(part)
        values = values if isinstance(values, dict) else {}
        mine = [name for name in names if name.startswith(prefix)]
        held = len({number for name in mine for number in _LAYER.findall(name)})
        for key in _COUNTS.intersection(values):
            if isinstance(values[key], int | float) and values[key] > held:
                raise ModelError(
                    f"{path}: {part}.{key} is {values[key]}, but the weights have {held} layers",
                    hint=remedy(path.parent),
                )


def _check_sizes(name: str, part: Any) -> None:
    """Raise ValueError for sizes below 1, of which every library complains in words of its own."""
    for key in sorted(_SIZES.intersection(part)) if isinstance(part, dict) else []:
        if isinstance(part[key], int | float) and part[key] < 1:
            raise ValueError(f"{name}.{key} is {part[key]} but must be at least 1")


@contextmanager
def valid_config(folder: Path) -> Iterator[None]:
    """Turn what goes wrong while something is built from a configuration into ModelError."""
    try:
        with quiet():
            yield
    except MalmmError:
        raise
    except Exception as error:  # every version of transformers raises its own kinds
        raise ModelError(
            f"{folder / 'config.json'}: does not describe a valid model: {first_line(error)[:300]}",
            hint=remedy(folder),
        ) from error


@contextmanager
def bounded(stored: int) -> Iterator[None]:
    """Let no more modules be built inside than that many stored tensors can be for."""
    built = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal built
        built += parameter is not None
        if built > 2 * stored + _UNSTORED:
            raise ValueError(f"it needs more parameters than the {stored} in the weights")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from printing or warning: problems are reported as errors."""
    logging: Any = transformers.utils.logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
