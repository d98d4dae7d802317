"""Where memory runs out: one smaller step, then one line that says what to lower."""

from __future__ import annotations

import gc
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any

import torch

from malmm_cli.errors import CapacityError
from malmm_cli.models.base import VideoModel
from malmm_cli.models.device import pick_dtype
from malmm_cli.text.words import counted

__all__ = ["ShortageError", "Step", "is_out_of_memory", "release"]

# What errors without a class of their own say: of MPS, of drivers, of cuBLAS and cuDNN, of the CPU.
_SAYINGS = ("out of memory", "ALLOC_FAILED", "allocate memory")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error says that memory does not suffice; PyTorch has several ways to."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAYINGS)


def release() -> None:
    """Give back what is no longer used of a GPU's memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


class ShortageError(CapacityError):
    """Too little memory for some work; `remedies` say what would help, by names of settings."""

    def __init__(
        self, message: str, *, remedies: Mapping[str, str] | None = None, **how: Any
    ) -> None:
        super().__init__(message, **{"kind": CapacityError.__name__, **how})
        self.remedies = dict(remedies or {})
        self.leave_out(())

    def leave_out(self, names: Collection[str]) -> None:
        """Do not name settings that the caller lacks, or that do not help it."""
        self.remedies = {k: text for k, text in self.remedies.items() if k not in names}
        if self.remedies:
            *others, last = self.remedies.values()
            self.hint = f"try {', '.join(others)} or {last}" if others else f"try {last}"


class Step:
    """How much is done at a time; where memory runs out, once more with a quarter of it.

        step = Step(net, 16, "encode {}", "frame")
        while frames:
            with step:
                done += net.encode(frames[: step.size])
                frames = frames[step.size :]

    What is done inside counts only if it comes to its end. The first time that memory runs out, the
    error ends there, and `size` is smaller from then on; it stays a multiple of `least`. The second
    time, or where nothing smaller is left, it becomes a `ShortageError`: its message says what was
    done (`doing`, with so many of `unit`), its hint has `remedies` and what helps everywhere.
    """

    def __init__(
        self,
        net: VideoModel[Any],
        size: int,
        doing: str,
        unit: str,
        *,
        least: int = 1,
        remedies: Mapping[str, str] | None = None,
    ) -> None:
        self.size = size
        self._net, self._doing, self._unit, self._least = net, doing, unit, least
        self._remedies = remedies or {}
        self._last = self._full = False

    def __enter__(self) -> None:
        if self._full:  # what the failed attempt held went with its error
            release()
            self._full = False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not is_out_of_memory(error):
            return False
        if self._last or self.size <= self._least:
            raise self._shortage() from error
        self.size = max(self.size // 4 // self._least, 1) * self._least
        self._last = self._full = True
        return True

    def _shortage(self) -> ShortageError:
        net = self._net
        doing = self._doing.format(f"{counted(self.size, self._unit)} at a time")
        dtype = str(net.dtype).removeprefix("torch.")
        return ShortageError(
            f"not enough memory on {net.device} in {dtype} to {doing}",
            remedies={**self._remedies, **_everywhere(net)},
        )


def _everywhere(net: VideoModel[Any]) -> dict[str, str]:
    """What makes a model itself smaller, or gives it more room."""
    found, device = {}, net.device
    if net.dtype == torch.float32:
        half = torch.bfloat16 if device.type == "cpu" else pick_dtype("auto", device)
        found["dtype"] = f"--dtype {str(half).removeprefix('torch.')}"
    if device.type == "cuda" and net.spec.bits != 4:
        found["quantize"] = "--quantize 4bit"
    if device.type != "cpu":
        found["device"] = "--device cpu"
    return {**found, "model": "a smaller --model"}
