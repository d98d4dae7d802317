"""How good a model's answers are: predictions, scores, tables, and what parts of it are worth.

`run` is the library call that `malmm eval` makes, `ablate` that of `malmm eval --ablate`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from malmm_cli.evaluate.runner import Ablation, Evaluation, Options, ablate, beside, run

__all__ = ["Ablation", "Evaluation", "Options", "ablate", "beside", "run"]


def __getattr__(name: str) -> Any:
    """Import on first use: the metrics need no model."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from malmm_cli.evaluate import runner

    found = getattr(runner, name)
    if name not in ("ablate", "run"):
        return found
    from malmm_cli.calls import public

    return globals().setdefault(name, public(found, f"evaluate.{name}"))
