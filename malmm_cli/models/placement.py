"""The names of devices, number types and quantizations, checked without torch."""

from __future__ import annotations

import re

from malmm_cli.errors import UsageError
from malmm_cli.text.words import known_names

__all__ = ["DTYPES", "QUANTIZED", "check_placement"]

DTYPES = ("float32", "bfloat16", "float16")
QUANTIZED = ("8bit", "4bit")


def check_placement(device: str, dtype: str, quantize: str | None) -> None:
    """Raise UsageError for names that no device, number type or quantization has.

    Whether this machine has the device is known only with torch: see `models.device.pick_device`.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", device):
        raise UsageError(f"unknown device {device!r}", hint="auto, cpu, cuda, cuda:0 … or mps")
    if dtype not in ("auto", *DTYPES):
        raise UsageError(f"unknown dtype {dtype!r}", hint=known_names(dtype, ("auto", *DTYPES)))
    if quantize is not None and quantize not in QUANTIZED:
        raise UsageError(
            f"unknown quantization {quantize!r}", hint=known_names(quantize, QUANTIZED)
        )
