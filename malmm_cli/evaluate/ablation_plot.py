"""The plot of an ablation: accuracy against age of evidence and length of video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from malmm_cli.evaluate.ablation import GIVEN
from malmm_cli.evaluate.plots import COLOURS, require_matplotlib
from malmm_cli.evaluate.report import seconds_text
from malmm_cli.formats import open_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

# family → title of its column
FAMILIES = {
    "trained": "trained as a variant",
    "banks": "banks, changed at inference",
    "policy": "policy, changed at inference",
    "memory": "memory length M, changed",
    "frames": "frames, changed at inference",
}
MARKERS = "osD^vP"

Results = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Side:
    """The x axis of a row of plots: a name, the bins of a row's scores, their edges in words."""

    name: str
    bins: Callable[[dict[str, Any]], list[dict[str, Any]]]
    text: Callable[[float], str]


SIDES = (
    Side(
        "age of the evidence, in frames", lambda row: row["scores"]["age"]["steps"], "{:g}".format
    ),
    Side("length of the video", lambda row: row["scores"]["length"], seconds_text),
)


def draw(results: Results, path: Path) -> bool:
    """Write results of `ablate` as a PNG: a column for each family, the model given in each.

    False where there is nothing to draw, since no question was answered.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    given = results[0]
    families = [name for name in FAMILIES if any(r["family"] == name for r in results)]
    sides = [side for side in SIDES if side.bins(given)]
    if not sides:
        return False
    figure = Figure(figsize=(3.6 * len(families), 3.3 * len(sides) + 0.9), layout="constrained")
    axes = figure.subplots(len(sides), len(families), sharey=True, squeeze=False)
    for row, side in enumerate(sides):
        for column, family in enumerate(families):
            members = [r for r in results if r["family"] == family]
            _panel(axes[row][column], given, members, side)
            axes[row][column].set_xlabel(side.name)
        axes[row][0].set_ylabel("correct answers, %")
    for column, family in enumerate(families):
        axes[0][column].set_title(FAMILIES[family], fontsize=10)
        axes[-1][column].legend(
            *axes[0][column].get_legend_handles_labels(),
            loc="upper center",
            bbox_to_anchor=(0.5, -0.28),
            ncols=2,
            fontsize=8,
            frameon=False,
        )
    figure.suptitle(f"black: the given model, {given['options']}", fontsize=11)
    with open_whole(path) as file:
        figure.savefig(file, format="png", dpi=150)
    return True


def _panel(axes: Axes, given: dict[str, Any], members: Results, side: Side) -> None:
    """The curves of one family beside the model given, over the bins of the latter."""
    bins = side.bins(given)
    columns = {found["from"]: index for index, found in enumerate(bins)}
    for number, result in enumerate([given, *members]):
        points = [found for found in side.bins(result) if found["from"] in columns]
        own = result["how"] == GIVEN
        axes.plot(
            [columns[found["from"]] for found in points],
            [100 * found["exact"] for found in points],
            color="black" if own else COLOURS[(number - 1) % len(COLOURS)],
            marker="." if own else MARKERS[(number - 1) % len(MARKERS)],
            linewidth=2.4 if own else 1.3,
            markersize=5,
            label="given" if own else result["options"],
            zorder=3 if own else 2,
        )
    axes.set_xticks(range(len(bins)), [_tick(found, side) for found in bins], fontsize=8)
    axes.set_xlim(-0.4, len(bins) - 0.6)
    axes.set_ylim(0, 102)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    for edge in ("top", "right"):
        axes.spines[edge].set_visible(False)


def _tick(found: dict[str, Any], side: Side) -> str:
    low, high = found["from"], found["to"]
    text = f"over {side.text(low)}" if high is None else f"to {side.text(high)}"
    return f"{text}\nn = {found['count']}"
