"""Parts common to all plots; matplotlib comes with the extra `eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from malmm_cli.errors import OUTPUT_EXISTS, UsageError
from malmm_cli.formats import check_writable, open_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "check_redrawable", "require_matplotlib", "save"]

COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377")  # safe for all eyes

_SOFTWARE = "malmm"  # in the PNG keyword of that name


def check_redrawable(path: Path, *, overwrite: bool) -> None:
    """Raise, as `check_writable` does, for a file that exists and is no plot of ours."""
    from PIL import Image  # not needed without a plot

    try:
        with Image.open(path) as picture:
            ours = picture.info.get("Software") == _SOFTWARE
    except OSError:
        ours = False
    if not ours and not overwrite and path.is_file():
        raise UsageError(
            f"{path}: exists, and malmm did not draw it",
            hint="use --overwrite, or choose another file with --picture",
            kind=OUTPUT_EXISTS,
        )
    check_writable(path, overwrite=True)


def save(figure: Figure, path: Path) -> None:
    """Write a plot as PNG, whole or not at all, that `check_redrawable` knows again."""
    with open_whole(path) as file:
        figure.savefig(file, format="png", dpi=150, metadata={"Software": _SOFTWARE})


def require_matplotlib() -> None:
    """Raise UsageError where the extra `eval` is not installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"the plot cannot be drawn: {error}", hint="pip install 'malmm[eval]'"
        ) from error
