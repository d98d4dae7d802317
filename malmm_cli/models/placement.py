"""The names of devices, number types and quantizations, checked without torch."""

from __future__ import annotations

import os
import re
import sys
from importlib.util import find_spec

from malmm_cli.errors import UsageError
from malmm_cli.text.words import known_names

__all__ = [
    *("DTYPES", "QUANTIZED"),
    *("check_lora", "check_packages", "check_placement", "dtype_on_cpu", "is_cpu"),
]

DTYPES = ("float32", "bfloat16", "float16")
QUANTIZED = ("8bit", "4bit")
DEVICES = "one of auto, cpu, cuda, cuda:0 … (NVIDIA, AMD), mps (Apple)"


def check_placement(device: str, dtype: str, quantize: str | None) -> None:
    """Raise UsageError for names that no device, number type or quantization has.

    So it is for a device that this machine cannot have. Whether it has one that it could have is
    known only with torch: see `models.device.pick_device`.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", device):
        raise UsageError(f"unknown device {device!r}", hint=DEVICES, option="device")
    if _is_impossible(device):
        hint = "use --device auto or cpu"
        raise UsageError(f"device {device!r} is not available", hint=hint, option="device")
    if dtype not in ("auto", *DTYPES):
        hint = known_names(dtype, ("auto", *DTYPES))
        raise UsageError(f"unknown dtype {dtype!r}", hint=hint, option="dtype")
    if quantize is not None and quantize not in QUANTIZED:
        hint = known_names(quantize, QUANTIZED)
        raise UsageError(f"unknown quantization {quantize!r}", hint=hint, option="quantize")


def check_packages(quantize: str | None, *, spread: bool = False) -> None:
    """Raise UsageError where a package that quantizes or spreads a model is not installed."""
    if quantize is None and not spread:
        return
    packages = ["accelerate", *(["bitsandbytes"] if quantize else [])]
    if absent := [package for package in packages if find_spec(package) is None]:
        raise UsageError(
            f"--quantize needs {' and '.join(absent)}", hint="pip install 'malmm[quantize]'"
        )


def check_lora(rank: int | None) -> None:
    """Raise UsageError where low-rank adapters are asked for and peft is not installed."""
    if rank is not None and find_spec("peft") is None:
        raise UsageError("--lora needs peft", hint="pip install 'malmm[lora]'")


def is_cpu(device: str) -> bool:
    """Whether it shows without torch that a device of this name is the CPU."""
    return device == "cpu" or (device == "auto" and all(map(_is_impossible, ("cuda", "mps"))))


def dtype_on_cpu(
    parameters: int | None = None, free: int | None = None, *, quick: bool = False
) -> str:
    """The number type that "auto" is on a CPU: float32 or, where that is better, bfloat16.

    It is better where `parameters` in float32 exceed `free` bytes, and where it is `quick`.
    """
    tight = parameters is not None and free is not None and 4 * parameters > free
    return "bfloat16" if tight or quick else "float32"


def _is_impossible(device: str) -> bool:
    """Whether it shows without torch that there is no such device."""
    if device == "mps":
        return sys.platform != "darwin"
    if not device.startswith("cuda"):
        return False
    return sys.platform == "darwin" or (sys.platform == "linux" and not _has_gpu_driver())


def _has_gpu_driver() -> bool:
    """Whether Linux has AMD's or NVIDIA's driver, without which PyTorch finds no GPU."""
    if os.path.exists("/dev/kfd"):
        return True
    import ctypes  # not needed for help

    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
