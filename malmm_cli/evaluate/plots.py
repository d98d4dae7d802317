"""Parts common to all plots; matplotlib comes with the extra `eval`."""

from __future__ import annotations

from malmm_cli.errors import UsageError

__all__ = ["COLOURS", "require_matplotlib"]

COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377")  # safe for all eyes


def require_matplotlib() -> None:
    """Raise UsageError where the extra `eval` is not installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"the plot cannot be drawn: {error}", hint="pip install 'malmm[eval]'"
        ) from error
