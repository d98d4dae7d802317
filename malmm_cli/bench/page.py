"""Everything measured → a page in Markdown, with a picture of time and memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from malmm_cli.evaluate.plots import COLOURS
from malmm_cli.files.atomic import new_file
from malmm_cli.files.jsonl import encoded
from malmm_cli.formats import open_whole

__all__ = ["HEADS", "draw", "page", "table", "video_cells", "write"]

Rows = Sequence[dict[str, Any]]

STAGES = ("open", "decode", "encode", "remember", "generate")
HEADS = ("form", "frames", *STAGES, "before text", "frames/s", "ratio", "MiB", "device MiB")

INTRODUCTION = """# Benchmarks

Measured by `malmm bench all`, which wrote this page, in one go. Each row comes from a process of
its own; seconds of steps are medians of nine, those of videos of one run, on a machine whose load
at the beginning is told below. Ratios hold when a machine is slower than another; seconds do not.
"""
STEPS = """## One step of the memory Q-Former

`malmm bench step`: published sizes (hidden 768, 12 layers, 257 patch tokens of width 1408, 32 query
tokens, 16 tokens of question), float32, batch 1, bank full. `none` is transformers' own
InstructBLIP Q-Former, which has no memory, on one frame; `slots` is the form in use; `naive`
projects the whole bank anew at every frame. A ratio is the median over pairs of one step and one
of `none`, timed in turn in one process; the machine's speed drifts between rows, so it is not this
row's seconds over those of the first.
"""
DRIFT = """## Rounding after many steps

`malmm bench drift`: a bank of 20 that frames walk through; root-mean-square errors against exact
means, relative. `keys` are projections as the bank keeps them, `once` the error of projecting the
exact means once in the same numbers.
"""
VIDEOS = """## Whole videos

`malmm bench video`: `malmm` as `malmm ask` does it, greedily, with one question; `encoder-step` the
same with frames decoded before; `decode` decoding alone; `bound` what the encoder's arithmetic
takes at the rate at which this machine multiplies large matrices; `naive` all pixels first, then
frame by frame with the whole bank projected anew; `transformers` InstructBLIP-Video on the same
weights, which has no memory and hands its tokens of every frame to the language model. Stages are
in seconds; `before text` is all that comes before generation. In `malmm`, decoding goes on beside
the rest and `decode` is what was waited for it. `ratio` is, for `malmm`, its `before text` over
the larger of those of `encoder-step` and `decode`; for the others, theirs over that of `malmm`.
"""
QUESTIONS = """## Many questions about one video

Time before generation, over that of one question; for a memory file, that of the visual pass and
all questions to the file, over the visual pass that made it.
"""


def page(results: dict[str, Any], picture: str, missing: int = 0) -> str:
    """The page; `results` has the `command`, the `machine`, and rows of the other things.

    `picture` is the name of the picture of videos; `missing` rows were not measured.
    """
    about = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    parts = [INTRODUCTION, f"    {results['command']}\n", f"{about}\n"]
    if missing:
        parts.append(f"**The run was stopped: {missing} rows are missing.**\n")
    if results["steps"]:
        heads = ("form", "M", "seconds", "ratio", "peak MiB")
        names = ("form", "memory", "seconds", "ratio", "peak_mib")
        parts += [STEPS, table(heads, ([row[n] for n in names] for row in results["steps"]))]
    if results["drift"]:
        heads = ("numbers", "steps", "entries", "keys", "once")
        parts += [DRIFT, table(heads, (row.values() for row in results["drift"]))]
    if results["videos"]:
        parts += [VIDEOS, *_videos(results["videos"])]
        parts += [f"![Time and memory against the length of the video]({picture})\n"]
    if results["questions"]:
        heads = ("form", "questions", "before text", "ratio", "peak MiB")
        names = ("form", "questions", "before", "ratio", "peak_mib")
        cells = ([row[n] for n in names] for row in results["questions"])
        parts += [QUESTIONS, table(heads, cells)]
    return "\n".join(parts)


def _videos(rows: Rows) -> Iterable[str]:
    for video in dict.fromkeys(row["video"] for row in rows):
        mine = [row for row in rows if row["video"] == video]
        done = [row for row in mine if "skipped" not in row]
        one = done[0]
        yield (
            f"**{Path(video).name}**, {one['duration']:g} s, M = {one['memory']}, model "
            f"{Path(one['model']).name}, {one['dtype']} on {one['device']}:\n"
        )
        yield table(HEADS, map(video_cells, done))
        for row in mine:
            if "skipped" in row:
                yield f"Not run: {row['form']}: {row['skipped']}.\n"


def video_cells(row: dict[str, Any]) -> list[Any]:
    """The cells of a video's row, under HEADS."""
    stages = [row["seconds"].get(stage, "") for stage in STAGES]
    ends = [row["before"], row["rate"], row.get("ratio", "")]
    share = f" ({row['encoder_share']:.0%} reached)" if "encoder_share" in row else ""
    memory = [row["peak_mib"], row["peak_device_mib"] or ""]
    return [row["form"] + share, row["frames"], *stages, *ends, *memory]


def table(heads: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *([str(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def draw(rows: Rows, path: Path) -> None:
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
    with new_file(path) as file:
        figure.savefig(file, format="png", dpi=120)


def write(results: dict[str, Any], path: Path, missing: int = 0) -> None:
    """The page at path, and its picture beside it under the same name; raises OutputError."""
    picture = path.with_suffix(".png")
    if results["videos"]:
        draw(results["videos"], picture)
    with open_whole(path) as file:
        file.write(encoded(page(results, picture.name, missing)))
