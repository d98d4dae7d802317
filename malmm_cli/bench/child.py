"""Measuring in separate processes, so that peak memory belongs to one measurement.

`python -m malmm_cli.bench NAME ARGUMENTS` is such a process: it calls the function NAME of
`MEASURES` with the arguments, a JSON object, and its last line is what that gave, as JSON.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from typing import Any

import torch

from malmm_cli.errors import CapacityError, MalmmError

__all__ = ["in_child", "machine", "peak_device_mib", "peak_mib", "wait"]


def in_child(name: str, **arguments: Any) -> dict[str, Any]:
    """What the measure of that name gives; MalmmError with its last line where it fails.

    CapacityError where the system killed it.
    """
    command = [sys.executable, "-m", "malmm_cli.bench", name, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == -9:  # SIGKILL, which Windows has no name for
        raise CapacityError(f"measuring {name} was killed: the machine may be out of memory")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise MalmmError(f"measuring {name} failed: {last}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import transformers

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def wait(device: torch.device) -> None:
    """Let a device finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_mib() -> int:
    """The most memory this process has held, in MiB."""
    try:  # elsewhere Linux counts what the parent held when it started this process
        with open("/proc/self/status", encoding="utf-8") as file:
            return next(int(x.split()[1]) // 1024 for x in file if x.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak // (1024 if sys.platform == "linux" else 1024 * 1024))


def peak_device_mib(device: torch.device) -> int:
    """The most memory that was taken of a GPU, in MiB; 0 for the CPU."""
    return torch.cuda.max_memory_allocated(device) // 2**20 if device.type == "cuda" else 0


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor()
