"""Which device and number type to compute with, where "auto" leaves the choice to us."""

from __future__ import annotations

import torch

from malmm_cli.errors import UsageError

__all__ = ["pick_device", "pick_dtype"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name, or the fastest there is; UsageError for one that is not here."""
    here = ["cpu"]
    if torch.cuda.is_available():
        here = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), "cpu"]
    elif torch.backends.mps.is_available():
        here = ["mps", "cpu"]
    if name == "auto":
        return torch.device(here[0])
    if name not in here:
        raise UsageError(f"device {name!r} is not here", hint=f"auto or one of {', '.join(here)}")
    return torch.device(name)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number type of that name; by itself float32 on a CPU and half precision elsewhere."""
    if name == "auto":
        if device.type == "cpu":
            return torch.float32
        bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if bfloat16 else torch.float16
    if name not in _DTYPES:
        raise UsageError(f"unknown dtype {name!r}", hint=f"auto or one of {', '.join(_DTYPES)}")
    return _DTYPES[name]
