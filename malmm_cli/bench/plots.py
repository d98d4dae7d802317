"""The plots of the benchmarks: whole videos, and growth with the number of frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from malmm_cli.evaluate.plots import COLOURS, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_growth", "draw_videos"]

Rows = Sequence[dict[str, Any]]


def draw_videos(rows: Rows, path: Path) -> None:
    """Seconds before generation and peak memory against length, a line for each form, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    done = [row for row in rows if "skipped" not in row]
    for colour, form in zip(COLOURS, dict.fromkeys(row["form"] for row in done), strict=False):
        mine = sorted((r for r in done if r["form"] == form), key=lambda row: row["duration"])
        minutes = [row["duration"] / 60 for row in mine]
        memory = [row["peak_device_mib"] or row["peak_mib"] for row in mine]
        panels[0].plot(minutes, [r["before"] for r in mine], "o-", color=colour, label=form)
        if form != "bound":  # which is arithmetic alone
            panels[1].plot(minutes, memory, "o-", color=colour, label=form)
    titles = ("seconds before generation", "peak memory, MiB")
    for panel, title in zip(panels, titles, strict=True):
        panel.set(title=title, xlabel="length of the video, minutes", xscale="log")
        panel.grid(alpha=0.3)
    panels[0].set_yscale("log")
    panels[1].set_ylim(bottom=0)
    for panel in panels:
        panel.legend(frameon=False)
    save(figure, path)


def draw_growth(rows: Rows, path: Path) -> None:
    """Tokens and peak memory against frames as PNG: a line with a memory, one without, its end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    tokens, peaks = figure.subplots(1, 2)
    for colour, length in zip(COLOURS, dict.fromkeys(row["memory"] for row in rows), strict=False):
        mine = sorted((r for r in rows if r["memory"] == length), key=lambda row: row["frames"])
        done = [row for row in mine if not row["failed"]]
        frames = [row["frames"] for row in done]
        how = {"color": colour, "label": f"memory bank, M = {length}" if length else "no memory"}
        tokens.plot(frames, [row["tokens"] for row in done], "o-", **how)
        peaks.plot(frames, [row["peak_device_mib"] or row["peak_mib"] for row in done], "o-", **how)
        if failed := [row["frames"] for row in mine if row["failed"]]:
            for panel in (tokens, peaks):
                label = f"{how['label']}: fails at {failed[0]} frames"
                panel.axvline(failed[0], color=colour, linestyle=":", label=label)
    if context := rows[0]["context"]:
        label = f"read by the language model: {context:,}"
        tokens.axhline(context, color="black", linestyle="--", linewidth=1, label=label)
    device = any(row["peak_device_mib"] for row in rows)
    tokens.set(title="video tokens given to the language model", yscale="log")
    peaks.set(title=f"peak memory{' of the device' if device else ''}, MiB")
    peaks.set_ylim(0, 1.35 * peaks.get_ylim()[1])  # room for the legend
    for panel in (tokens, peaks):
        _scale_frames(panel, sorted({row["frames"] for row in rows}))
        panel.legend(frameon=False, fontsize=8)
    save(figure, path)


def _scale_frames(panel: Axes, frames: Sequence[int]) -> None:
    """Let the x axis have these numbers of frames, those that would overlap left out."""
    shown = [n for k, n in enumerate(frames) if k == 0 or n >= 1.4 * frames[k - 1]]
    panel.set(xlabel="frames of the video", xscale="log")
    panel.set_xticks(shown, [f"{number:,}" for number in shown])
    panel.minorticks_off()
    panel.grid(alpha=0.3)
