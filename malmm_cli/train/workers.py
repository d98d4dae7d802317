"""The processes of a training run: one, unless torchrun or accelerate started more."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from malmm_cli.errors import MalmmError, ModelError, UsageError
from malmm_cli.models.device import pick_device

__all__ = ["ToldElsewhereError", "Workers", "joined"]

# One may download or encode for hours while the others wait; that it died shows at once.
PATIENCE = timedelta(days=1)
MEETING = timedelta(minutes=10)


class ToldElsewhereError(MalmmError):
    """The training ended, and another of its processes reports why."""


@dataclass(frozen=True)
class Workers:
    """The number of this process among `count`, and where it computes; the first one writes.

    What they share is in `store`, where they were started together.
    """

    rank: int = 0
    count: int = 1
    device: str = "auto"
    store: Any = None

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.count > 1:
            with _connected():
                for tensor in tensors:
                    torch.distributed.all_reduce(tensor)

    def total(self, *numbers: float) -> list[float]:
        """The sum of each number over all processes."""
        if self.count == 1:
            return list(numbers)
        sums = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        self.add_up([sums])
        found: list[float] = sums.tolist()
        return found

    def of_first(self, content: Any) -> Any:
        """The first process's value."""
        if self.count == 1:
            return content
        given = [content]
        with _connected():
            torch.distributed.broadcast_object_list(given, src=0)
        return given[0]

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.total(0.0)

    def speaks(self) -> bool:
        """Whether this process is the first that ends early, and so the one that says why."""
        try:
            return bool(self.store.add("malmm/ended", 1) == 1)
        except RuntimeError:  # there is nobody left to ask
            return True


@contextmanager
def _connected() -> Iterator[None]:
    """Turns the loss of another process into ModelError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ModelError(
            "another training process has ended or is unreachable",
            hint="rerun the same command to resume from the last checkpoint",
            kind="ProcessLost",
        ) from error


@contextmanager
def joined(device: str = "auto") -> Iterator[Workers]:
    """The processes that torchrun or accelerate started, each with a device of its own.

    That is a CUDA device, or the CPU. Of the errors that end several processes the first to come is
    raised as it is, and in all others ToldElsewhereError. Raises UsageError for too few devices.
    """
    count = _number("WORLD_SIZE", 1)
    if count < 2 or "RANK" not in os.environ:
        yield Workers(device=device)
        return
    workers = Workers(_number("RANK", 0), count, "cpu", _met(count))
    try:
        own = _own_device(device, _number("LOCAL_RANK", 0), _number("LOCAL_WORLD_SIZE", 1))
        with _connected():
            torch.distributed.init_process_group(
                "gloo" if own == "cpu" else "nccl",
                store=workers.store,
                rank=workers.rank,
                world_size=count,
                timeout=PATIENCE,
            )
        yield replace(workers, device=own)
    except (MalmmError, KeyboardInterrupt) as error:
        # Ctrl-C comes to all, and the first has more to tell
        if (workers.first or isinstance(error, MalmmError)) and workers.speaks():
            raise
        raise ToldElsewhereError("see the error of the other process") from error
    torch.distributed.destroy_process_group()


def _met(count: int) -> Any:
    """The store that all processes share; UsageError where they do not meet."""
    distributed: Any = torch.distributed  # which declares less than it documents
    try:
        return next(distributed.rendezvous("env://", timeout=MEETING))[0]
    except (RuntimeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"WORLD_SIZE is {count}, but the processes cannot connect: "
            f"{str(error).splitlines()[0]}",
            hint="start them with torchrun, or unset WORLD_SIZE for one process",
        ) from error


def _own_device(device: str, rank: int, count: int) -> str:
    """The device of the process with that rank, of `count` on this machine."""
    where = pick_device(device)
    if where.type == "cpu" or (where.type == "mps" and device == "auto"):
        return "cpu"
    if where.type != "cuda" or (where.index is not None and count > 1):
        raise UsageError(
            f"--device {device}: {count} processes cannot share it",
            hint="use --device auto (one GPU each) or --device cpu",
        )
    there = torch.cuda.device_count()
    if count > there:
        raise UsageError(
            f"{count} processes were started on a machine with {there} GPU(s)",
            hint=f"use --nproc-per-node {there}, or --device cpu",
        )
    own = torch.device("cuda", rank if where.index is None else where.index)
    torch.cuda.set_device(own)
    return str(own)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise UsageError(
            f"{name}={text}: must be a whole number",
            hint="torchrun sets it; for one process, unset it",
        ) from None
