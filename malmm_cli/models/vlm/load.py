"""A folder of weights → a vision-language model."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers

from malmm_cli.checkpoints.layout import DERIVED, read_config, read_json, remedy
from malmm_cli.checkpoints.state import read_state
from malmm_cli.errors import ModelError
from malmm_cli.models.config import bounded, checked_config, token_ids, valid_config
from malmm_cli.models.device import language_options
from malmm_cli.models.theirs import load_theirs
from malmm_cli.models.tokens import read_tokenizer
from malmm_cli.models.vlm.adapter import Adapter
from malmm_cli.models.vlm.internvl import InternVL
from malmm_cli.models.vlm.processor import check_processor, check_template
from malmm_cli.models.vlm.qwen3_5 import Qwen35
from malmm_cli.models.vlm.qwen3_vl import Qwen3VL
from malmm_cli.models.vlm.smolvlm import SmolVLM
from malmm_cli.models.vlm.texts import Texts
from malmm_cli.models.vlm.trainable import TrainableVisionLanguage

__all__ = ["ADAPTERS", "load"]

# `model_type` → adapter
ADAPTERS: dict[str, type[Adapter]] = {
    "qwen3_vl": Qwen3VL,
    "qwen3_5": Qwen35,
    "smolvlm": SmolVLM,
    "internvl": InternVL,
}


def load(
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    quantize: str | None = None,
    spread: bool = False,
) -> TrainableVisionLanguage:
    """The model in a folder of the published layout, ready to run; raises ModelError.

    Every parameter is loaded by name and shape: none missing, none left over. `quantize` stores
    the linear layers in fewer bits, `spread` puts them on all devices of the machine.
    """
    folder = Path(folder)
    adapter_class = ADAPTERS[read_config(folder)["model_type"]]
    kind = _class(adapter_class)
    options = language_options(device, dtype, quantize=quantize, spread=spread)
    unused = (*adapter_class.unused,)
    state = {
        name: value
        for name, value in read_state(folder).items()
        if not name.endswith(DERIVED) and not name.startswith(unused)
    }
    content = checked_config(folder, state, adapter_class.parts)
    with valid_config(folder):
        config = kind.config_class.from_dict(content)
        adapter = adapter_class(config)
    check_processor(folder, adapter)
    check_template(folder, adapter)
    texts = _texts(folder, adapter)
    with valid_config(folder), bounded(len(state)):
        net = load_theirs(kind, config, state, str(folder), {"dtype": dtype, **options})
    net = net.eval().requires_grad_(False)
    if not options:
        net.to(device)
    bits = {"8bit": 8, "4bit": 4}.get(quantize or "")
    return TrainableVisionLanguage(net, adapter, texts, bits)


def _class(adapter: type[Adapter]) -> Any:
    """The class in transformers; ModelError where the installed version is too old for it."""
    installed = version("transformers")
    if _numbers(installed) < _numbers(adapter.since):
        raise ModelError(
            f"this model needs transformers {adapter.since} or later; {installed} is installed",
            hint=f"pip install 'transformers>={adapter.since}'",
        )
    return getattr(transformers, adapter.kind)


def _numbers(version: str) -> list[int]:
    """The first two numbers of a version."""
    return [int(number) for number in version.split(".")[:2]]


def _texts(folder: Path, adapter: Adapter) -> Texts:
    """The tokenizer; ModelError where it lacks what the prompt's form is made of."""
    tokenizer = read_tokenizer(folder, "the model's tokenizer in the folder")
    known = tokenizer.get_vocab()
    lacking = [mark for mark in adapter.marks if mark not in known]
    rows = adapter.config.text_config.vocab_size
    if lacking or max(known.values()) >= rows:
        fault = (
            f"lacks {', '.join(lacking)}" if lacking else f"has more tokens than the {rows} rows"
        )
        raise ModelError(f"{folder}: the tokenizer {fault}", hint=remedy(folder))
    path = folder / "generation_config.json"
    more = read_json(path) if os.path.lexists(path) else {}
    with valid_config(folder):
        ends = [*token_ids(more.get("eos_token_id"))]
        ends += token_ids(adapter.config.text_config.eos_token_id)
    own = known[adapter.marks[0]]
    return Texts(tokenizer, [own, *(end for end in ends if 0 <= end < rows)])
