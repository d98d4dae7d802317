"""The CPUs and memory of this machine."""

from __future__ import annotations

__all__ = ["free_memory"]


def free_memory() -> int:
    """Bytes of this machine's memory that are free for use."""
    import psutil

    return int(psutil.virtual_memory().available)
