"""Many videos in one run, each item once in the output.

`run` is the library call that `malmm batch` makes, `dry_run` says what it would do (`runner`). The
package can be called too: `malmm_cli.batch(…)` is `malmm_cli.batch.run(…)`.

inputs → tasks ─plan→ what is to be done, and what is ─jobs→ engine ─outcomes→ ledger → files

The lines of the output are the truth (`lines`); the state (`state`) and the files in a folder
(`files`) follow from them. `loop` joins all of it. An engine is `pool`, processes on this machine,
or another one that serves the same `worker`.
"""

from __future__ import annotations

import sys
from inspect import Signature, signature
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from malmm_cli.batch.runner import Options, dry_run, run
    from malmm_cli.batch.summary import DryRun, Summary

    class Package:
        """What `malmm_cli.batch` is to type checkers, which know no module that can be called."""

        DryRun, Options, Summary = DryRun, Options, Summary
        dry_run = staticmethod(dry_run)
        run = __call__ = staticmethod(run)


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


class _Callable(ModuleType):
    """A module whose call is `run`."""

    def __call__(self, *positional: Any, **named: Any) -> Any:
        return self.run(*positional, **named)

    @property
    def __signature__(self) -> Signature:
        """What editors complete; not before they ask."""
        return signature(self.run)


sys.modules[__name__].__class__ = _Callable  # as Python's data model has it for modules
