"""The processes that learn side by side; one, unless accelerate or torchrun started more."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from malmm_cli.errors import UsageError

__all__ = ["Workers", "find_workers"]


@dataclass(frozen=True)
class Workers:
    """The number of this process among `count`, and where it computes; the first one writes."""

    rank: int = 0
    count: int = 1
    device: str = "auto"

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.count > 1:
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

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.total(0.0)


def find_workers(device: str = "auto") -> Workers:
    """The processes that `accelerate launch` or torchrun started, each with a device of its own.

    Raises UsageError where accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Workers(device=device)
    if find_spec("accelerate") is None:
        raise UsageError(
            "accelerate must be installed for several processes", hint="pip install 'malmm[train]'"
        )
    from accelerate import Accelerator

    own = Accelerator(cpu=device == "cpu")
    place = "cpu" if own.device.type == "cpu" else str(own.device)
    return Workers(own.process_index, own.num_processes, place)
