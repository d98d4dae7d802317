"""The CPUs and memory of this machine."""

from __future__ import annotations

import os
import re

from malmm_cli.errors import UsageError

__all__ = ["free_memory"]

FAKE = "MALMM_FAKE_MEMORY"  # "8GB": to try what happens on a smaller or larger machine
_UNITS = {"MB": 10**6, "GB": 10**9}


def free_memory() -> int:
    """Bytes of this machine's memory that are free for use; MALMM_FAKE_MEMORY overrides them."""
    if fake := os.environ.get(FAKE):
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?) ?(MB|GB)", fake.strip())
        if not found:
            raise UsageError(f"{FAKE}={fake}: must be a size such as 8GB")
        return int(float(found[1]) * _UNITS[found[2]])
    import psutil

    return int(psutil.virtual_memory().available)
