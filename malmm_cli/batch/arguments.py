"""Arguments of the library call: their types, and what types alone do not say of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from malmm_cli.errors import UsageError
from malmm_cli.media.sandbox import Limits
from malmm_cli.settings import Changes

__all__ = ["Inputs", "Options", "as_paths", "check_values"]

Inputs = str | Path | Sequence[str | Path]


class Options(Changes, total=False):
    """Keyword arguments of `run` and `dry_run`: those of a batch, and changes to the settings."""

    questions: Sequence[str]
    listed: Iterable[str]
    null: bool
    include: Sequence[str]
    exclude: Sequence[str]
    format: str | None
    model: str | Path
    device: str
    dtype: str
    quantize: str | None
    offline: bool
    workers: int | None
    ray: str | None
    timeout: float | None
    retry: int
    limit: int | None
    fail_fast: bool
    retry_failed: bool
    beside: bool
    overwrite: bool
    cache: str | Path | None
    cache_size: float
    full_hash: bool
    limits: Limits


def check_values(given: dict[str, Any]) -> None:
    """Raise UsageError for values that make no sense; a lone text becomes a list of it."""
    for name, least in (("workers", 1), ("retry", 0), ("limit", 1)):
        if given.get(name) is not None and given[name] < least:
            raise UsageError(f"{name} must be at least {least}, not {given[name]}")
    if not (given.get("timeout") is None or given["timeout"] > 0):
        raise UsageError(f"timeout must be above 0, not {given['timeout']}")
    for name in ("questions", "include", "exclude"):
        if isinstance(given.get(name), str):
            given[name] = [given[name]]
    for name, kind, kinds in (
        ("questions", list | tuple, "a list of strings"),
        ("include", list | tuple, "a list of patterns"),
        ("exclude", list | tuple, "a list of patterns"),
        ("listed", Iterable, "paths"),
        ("limits", Limits, "Limits"),
    ):
        if name in given and not isinstance(given[name], kind):
            raise UsageError(f"{name} must be {kinds}, not {given[name]!r}")


def as_paths(inputs: Inputs) -> list[str]:
    """The inputs as texts; UsageError for what is not a path or a list of paths."""
    several = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    paths = isinstance(several, list | tuple) and all(
        isinstance(one, str | os.PathLike) for one in several
    )
    if not paths:
        raise UsageError(f"inputs must be paths, not {inputs!r}")
    return [os.fspath(one) for one in several]
