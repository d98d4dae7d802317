"""Which models can be checked, as far as it is known before torch is imported."""

from __future__ import annotations

from malmm_cli import hub
from malmm_cli.errors import UsageError
from malmm_cli.models import registry

__all__ = ["check_family"]


def check_family(name: str) -> None:
    """Raise UsageError for a model of a family that has no second path to compare with.

    A model that is not downloaded yet may be of any family, unless its short name is known.
    """
    kind, known = hub.model_type(name), registry.having("check")
    if kind is not None and kind not in known:
        raise UsageError(
            f"{name}: models of type {kind} cannot be checked",
            hint=f"types that can: {', '.join(known)}",
        )
