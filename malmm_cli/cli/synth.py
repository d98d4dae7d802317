"""The command `malmm synth`."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from malmm_cli.cli.console import note, warn
from malmm_cli.cli.terminal import Terminal
from malmm_cli.errors import UsageError
from malmm_cli.text.words import counted

if TYPE_CHECKING:
    from malmm_cli.datasets.synthetic import World


def _option(metavar: str, text: str) -> Any:
    return typer.Option(metavar=metavar, help=text, rich_help_panel="Data set")


def synth(
    folder: Annotated[Path, typer.Argument(metavar="OUT", show_default=False)],
    videos: Annotated[int, _option("N", "Number of videos.")] = 100,
    seed: Annotated[int, _option("N", "Random seed; decides all videos and questions.")] = 0,
    minutes: Annotated[
        str, _option("A[-B]", "Length of the videos in minutes: A, or A to B.")
    ] = "1-2",
    split: Annotated[
        str,
        _option(
            "train|validation|test", "Half of the events in test videos occur in no other split."
        ),
    ] = "test",
    questions: Annotated[int, _option("N", "Number of questions per video.")] = 10,
    events: Annotated[
        int | None, _option("N", "Events per video.  [default: 5 to 12 in two minutes]")
    ] = None,
    colours: Annotated[
        str | None,
        _option("A,B", "Colours of the shapes; teal is not used by default."),
    ] = None,
    fps: Annotated[float, _option("N", "Frames per second.")] = 8.0,
    world: Annotated[
        str,
        _option("plain|hard|signs", "hard: bursts, drift, distractors; signs: numbers to read."),
    ] = "plain",
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only print errors.")] = False,
    no_progress: Annotated[
        bool, typer.Option("--no-progress", help="Hide the progress bar.")
    ] = False,
) -> None:
    """Make a synthetic data set.

    Its videos show coloured shapes; captions, events and questions come with them.

    OUT gets videos/*.mp4; data.jsonl, which train and eval read; and events.jsonl, what happens
    when. Rerun the same command to resume an interrupted run.

    \b
    malmm synth world/ --videos 20 --seed 7
    malmm synth long/ --videos 5 --minutes 10-20 --events 8
    malmm synth lessons/ --videos 200 --split train --colours teal,red,blue
    """
    from malmm_cli.datasets.synthetic import COLOURS, World

    known = COLOURS if colours is None else tuple(re.split(r"\s*,\s*", colours.strip()))
    made = World(
        videos=videos,
        seed=seed,
        minutes=_range(minutes),
        split=split,
        questions=questions,
        events=events,
        colours=known,
        fps=fps,
        world=world,
    )
    _write(made, folder, Terminal(quiet=quiet, bars=not no_progress), quiet=quiet)


def _write(world: World, folder: Path, terminal: Terminal, *, quiet: bool) -> None:
    """Write the data set, and say what it has."""
    from malmm_cli.datasets.synthetic import write_dataset

    tasks = write_dataset(world, folder, terminal)
    least = min(Counter(task.video for task in tasks).values()) - 1  # the caption is no question
    if least < world.questions:
        warn(
            f"--questions {world.questions}: some videos have only {least}; "
            "their events allow no more"
        )
    if not quiet:
        lines = counted(len(tasks), "line")
        note(f"{folder}: {counted(world.videos, 'video')}, {lines} in data.jsonl")


def _range(text: str) -> tuple[float, float]:
    """From where to where in minutes: "2", "1-2", "0.5-10"."""
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)(?:-(\d+\.?\d*|\.\d+))?", text.strip())
    if not found:
        raise UsageError(f"--minutes {text}: give a number such as 1.5, or a range such as 1-2")
    shortest = float(found[1])
    return shortest, float(found[2] or shortest)
