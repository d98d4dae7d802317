"""JSON text → values, refusing what the format leaves open: duplicate keys, endless nesting."""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["NotJsonError", "RefusedError", "load"]


class NotJsonError(ValueError):
    """Text that is not JSON, or is nested too deeply to be read."""


class RefusedError(ValueError):
    """JSON with a duplicate key, or with a number that is not finite where that was asked for."""


def load(text: str | bytes, *, finite: bool = False) -> Any:
    """`json.loads`; raises NotJsonError or RefusedError.

    Python's own writer has NaN and infinities, which fields without limits may hold, as a loss
    does. `finite` refuses them.
    """
    number = _finite if finite else None
    try:
        return json.loads(text, parse_float=number, parse_constant=number, object_pairs_hook=_once)
    except RefusedError:
        raise
    except RecursionError as error:
        raise NotJsonError("not valid JSON: nested too deeply") from error
    except ValueError as error:  # also bytes that are not UTF-8, and endless integers
        raise NotJsonError(f"not valid JSON: {error}") from error


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise RefusedError(f"{number[:20]} is not a finite number")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = iter(content)  # in the order in which they came first
        twice = next(name for name, _ in pairs if name != next(names, None))
        raise RefusedError(f"duplicate key {twice[:80]!r}")
    return content
