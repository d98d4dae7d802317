"""Many videos in one run, each item once in the output.

`run` is the library call that `malmm batch` makes, `dry_run` says what it would do (`runner`).

inputs → tasks ─plan→ what is to be done, and what is ─jobs→ engine ─outcomes→ ledger → files

The lines of the output are the truth (`lines`); the state (`state`) and the files in a folder
(`files`) follow from them. `loop` joins all of it. An engine is `pool`, processes on this machine,
or another one that serves the same `worker`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from malmm_cli.batch.runner import Options, dry_run, run
    from malmm_cli.batch.summary import DryRun, Summary

__all__ = ["DryRun", "Options", "Summary", "dry_run", "run"]


def __getattr__(name: str) -> Any:
    """Import on first use: a worker needs little of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from malmm_cli.batch import runner, summary

    found = getattr(summary if name in summary.__all__ else runner, name)
    if name not in ("dry_run", "run"):
        return found
    from malmm_cli.calls import public

    return globals().setdefault(name, public(found, f"batch.{name}"))
