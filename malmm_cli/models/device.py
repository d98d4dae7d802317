"""Which device, dtype and quantization to compute with, and timing."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from malmm_cli.errors import UsageError
from malmm_cli.models.placement import (
    DTYPES,
    QUANTIZED,
    check_packages,
    check_placement,
    dtype_on_cpu,
)
from malmm_cli.text.words import known_names

__all__ = [
    *("Clock", "language_options", "limit_threads", "pick_device", "pick_dtype"),
]

# Linux's limit of this process's processors, in microseconds of each period (cgroups, version 2).
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")

# Parameters from which on what bfloat16 saves can be noticed.
_MANY = 500_000_000

_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPES}


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
        check_placement(name, "auto", None)
        others = "cpu" if here == ["cpu"] else f"one of {', '.join(here)}"
        hint = f"use --device auto or {others}"
        raise UsageError(f"device {name!r} is not available", hint=hint, option="device")
    return torch.device(name)


def pick_dtype(
    name: str, device: torch.device, *, parameters: int | None = None, free: int | None = None
) -> torch.dtype:
    """The number type of that name; "auto" is float32 on a CPU and half precision elsewhere.

    On a CPU too, "auto" is half precision where `parameters` in float32 exceed `free` bytes, and
    where there are many and its hardware multiplies in bfloat16.
    """
    if name == "auto":
        if device.type == "cpu":
            quick = (parameters or 0) >= _MANY and multiplies_bfloat16()
            return _DTYPES[dtype_on_cpu(parameters, free, quick=quick)]
        bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if bfloat16 else torch.float16
    if name not in _DTYPES:
        raise UsageError(f"unknown dtype {name!r}", hint=known_names(name, ("auto", *_DTYPES)))
    return _DTYPES[name]


def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for it; older versions of PyTorch do not tell."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("amx_bf16") or known.get("avx512_bf16"))


def limit_threads() -> None:
    """Let PyTorch use no more threads than a container may use processors; it does not look."""
    try:
        quota, period = CPU_LIMIT.read_text().split()
        allowed = max(round(int(quota) / int(period)), 1)
    except (OSError, ValueError):  # there is no limit: none is set, or it says "max"
        return
    torch.set_num_threads(min(torch.get_num_threads(), allowed))


def language_options(
    device: str | torch.device,
    dtype: torch.dtype,
    *,
    quantize: str | None = None,
    spread: bool = False,
) -> dict[str, Any]:
    """Keyword arguments for loading the language model with transformers; usually none.

    `quantize` stores its linear layers in 8 or 4 bits (bitsandbytes: LLM.int8(); NF4 with a
    computation in `dtype`). `spread` puts its layers on all GPUs and, where they are full, on the
    CPU (accelerate). Raises UsageError for a value or package that is not there.
    """
    if quantize is None and not spread:
        return {}
    if quantize is not None and quantize not in QUANTIZED:
        raise UsageError(
            f"unknown quantization {quantize!r}", hint=known_names(quantize, QUANTIZED)
        )
    check_packages(quantize, spread=spread)
    options: dict[str, Any] = {"device_map": "auto" if spread else {"": torch.device(device)}}
    if quantize is not None:
        options["quantization_config"] = _quantization(quantize, dtype)
    return options


def _quantization(quantize: str, dtype: torch.dtype) -> Any:
    import transformers

    # it would tell of every layer at every step that numbers are rounded, which was asked for
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    config: Any = transformers.BitsAndBytesConfig
    if quantize == "8bit":
        return config(load_in_8bit=True)
    return config(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


class Clock:
    """Adds up the seconds of named stages; waits for the device, so that each pays for its own.

    It waits for what this thread gave the device: a stage of another thread may go on beside it.
    """

    def __init__(self, device: torch.device, seconds: dict[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = {} if seconds is None else seconds
        self._device = device

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time what is done inside."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if self._device.type == "cuda":
                torch.cuda.current_stream(self._device).synchronize()
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
