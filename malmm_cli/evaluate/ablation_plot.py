"""The plot of an ablation: correct answers against the age of their evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from malmm_cli.evaluate.plots import COLOURS, require_matplotlib, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

MARKERS = "osD^vP"
GIVEN = {"color": "black", "marker": ".", "linewidth": 2.4, "zorder": 3}
BLIND = {"color": "#777777", "linestyle": ":", "linewidth": 1.6, "zorder": 1}

# families of a panel of the lower row → its title
LOWER = {
    ("merge", "mean", "fill"): "how slots are merged",
    ("banks",): "banks",
    ("memory", "frames"): "frames",
    ("trained",): "trained as a variant",
}

Result = Mapping[str, Any]
Bins = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Curve:
    """A line of the table at one M: by the lower edge of each bin, the shares of all its seeds."""

    label: str
    shares: Mapping[float, Sequence[float]]
    style: Mapping[str, Any]


def draw(results: Sequence[Result], blind: Result | None, path: Path) -> bool:
    """Write results of `ablate` as a PNG: a panel of all policies for each M, then other changes.

    Where a line has several seeds, its curve is their mean, and a band reaches from the lowest to
    the highest. False where there is nothing to draw, since no answer has evidence of known age.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    given = results[0]
    bins: Bins = given["scores"]["age"]["steps"]
    if not bins:
        return False
    guess = [_curve("blind guess", [blind], BLIND)] if blind else []
    upper = _upper(results)
    lower = {
        title: [_given(results, given["column"]), *found]
        for families, title in LOWER.items()
        if (found := _curves(results, families, given["column"]))
    }
    width = max(len(upper), len(lower))
    figure = Figure(figsize=(3.7 * width, 7.4), layout="constrained")
    axes = figure.subplots(2, width, sharey=True, squeeze=False)
    for row, panels in zip(axes, (upper, lower), strict=True):
        for place, (title, curves) in zip(row, panels.items(), strict=False):
            _panel(place, title, [*curves, *guess], bins)
        for place in row[len(panels) :]:
            place.remove()
        row[0].set_ylabel("correct answers, %")
    figure.suptitle(f"black: the given model, {given['options']}", fontsize=11)
    save(figure, path)
    return True


def _upper(results: Sequence[Result]) -> dict[str, list[Curve]]:
    """By title, the curves of all policies at each M."""
    given = results[0]["line"]
    columns = sorted({r["column"] for r in results if r["line"] == given and r["column"]})
    return {
        f"policies, M = {column}": [
            _given(results, column),
            *_curves(results, ("policy",), column),
        ]
        for column in columns
    } or {"policies": [_given(results, None), *_curves(results, ("policy",), None)]}


def _given(results: Sequence[Result], column: int | None) -> Curve:
    """The given model at one M."""
    line = results[0]["line"]
    own = [r["scores"] for r in results if (r["line"], r["column"]) == (line, column)]
    return _curve(line, own, GIVEN)


def _curves(results: Sequence[Result], families: Sequence[str], column: int | None) -> list[Curve]:
    """The curves of some families at one M and of what has no M; a line looks alike everywhere."""
    lines: dict[str, list[Result]] = {}
    for result in results:
        if result["family"] in families and result["line"] != results[0]["line"]:
            lines.setdefault(result["line"], []).append(result)
    found = []
    for number, (line, rows) in enumerate(lines.items()):
        own = [row["scores"] for row in rows if row["column"] in (column, None)]
        look = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number % len(MARKERS)],
            "linestyle": "-" if number < len(COLOURS) else "--",
            "linewidth": 1.3,
            "zorder": 2,
        }
        if own:
            found.append(_curve(line, own, look))
    return found


def _curve(label: str, scores: Sequence[Result], style: Mapping[str, Any]) -> Curve:
    shares: dict[float, list[float]] = {}
    for one in scores:
        for found in one["age"]["steps"]:
            shares.setdefault(found["from"], []).append(100 * found["exact"])
    return Curve(label, shares, style)


def _panel(axes: Axes, title: str, curves: Sequence[Curve], bins: Bins) -> None:
    """Curves over the bins of the given model, with a legend below."""
    places = {found["from"]: index for index, found in enumerate(bins)}
    for curve in curves:
        known = [low for low in places if low in curve.shares]
        at = [places[low] for low in known]
        shares = [curve.shares[low] for low in known]
        axes.plot(
            at, [mean(each) for each in shares], label=curve.label, markersize=5, **curve.style
        )
        if any(len(each) > 1 for each in shares):
            low, high = [min(each) for each in shares], [max(each) for each in shares]
            axes.fill_between(at, low, high, color=curve.style["color"], alpha=0.2, linewidth=0)
    axes.set_title(title, fontsize=10)
    axes.set_xticks(range(len(bins)), map(_tick, bins), fontsize=8)
    axes.set_xlim(-0.4, len(bins) - 0.6)
    axes.set_ylim(0, 102)
    axes.set_xlabel("age of the evidence, in frames", fontsize=9)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    for edge in ("top", "right"):
        axes.spines[edge].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=2, fontsize=8, frameon=False)


def _tick(found: Mapping[str, Any]) -> str:
    low, high = found["from"], found["to"]
    text = f"over {low:g}" if high is None else f"{low:g}–{high:g}"
    return f"{text}\nn = {found['count']}"
