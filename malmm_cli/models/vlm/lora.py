"""Low-rank adapters in the language model (Hu et al., LoRA, 2021), by the library peft.

A linear layer W gets two small matrices, A and B, and computes W + SCALE · B A. B begins as zero,
so that nothing changes at first. What was learnt is merged into W when a model is saved.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from malmm_cli.models.config import quiet

__all__ = ["add", "merged", "parameters"]

SCALE = 2

_NAME = "default"  # peft's, of adapters that have no other
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


def add(language: Any, rank: int, seed: int) -> None:
    """Put adapters of a rank into all linear layers of a language model, which has no head."""
    # peft imports it where it is there, and it would tell of kernels that are not
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    with quiet():
        import peft  # an extra; takes seconds

        layers = [name for name, part in language.named_modules() if isinstance(part, nn.Linear)]
        config = peft.LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=layers)
        devices = [language.device] if language.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            peft.inject_adapter_in_model(config, language, _NAME)


def parameters(net: Any) -> dict[str, nn.Parameter]:
    """The adapters' matrices, by the names of their layers in the folder of weights."""
    ending = f".{_NAME}.weight"
    return {
        f"{name.removesuffix(ending)}.weight": parameter
        for name, parameter in net.named_parameters()
        if ".lora_" in name and name.endswith(ending)
    }


def merged(base: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What takes the place of tensors in base: those trained, and layers with their adapters."""
    laid_over = {name: value for name, value in trained.items() if not name.endswith((_DOWN, _UP))}
    for name, down in trained.items():
        if name.endswith(_DOWN):
            layer = name.removesuffix(_DOWN)
            change = SCALE * (trained[layer + _UP] @ down)
            laid_over[f"{layer}.weight"] = base[f"{layer}.weight"].float() + change
    return laid_over
