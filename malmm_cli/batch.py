"""Which files a batch is made of, and the one loop over them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from malmm_cli.data import Result
from malmm_cli.errors import MalmmError, UsageError
from malmm_cli.output import Failure, Item

__all__ = ["VIDEO_SUFFIXES", "find_videos", "run"]

VIDEO_SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".hevc", ".m2ts"),
    *(".m2v", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm"),
    *(".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)


def find_videos(inputs: Sequence[str], lines: Iterable[str]) -> list[str]:
    """Files named, files in folders (by suffix, recursively, sorted), and a list for "-".

    Each file once, in the order it was first named. Raises UsageError where nothing is found.
    """
    found: dict[str, None] = {}
    for given in inputs:
        if given == "-":
            found.update((line.rstrip("\r\n"), None) for line in lines if line.strip())
        elif os.path.isdir(given):
            found.update((str(path), None) for path in _walk(Path(given)))
        else:
            found[given] = None
    if not found:
        raise UsageError(
            f"no videos in {', '.join(inputs)}",
            hint="give folders, files, or - for a list of files on stdin",
        )
    return list(found)


def run(videos: Iterable[str], work: Callable[[str], Result], task: str) -> Iterator[Item]:
    """The result of each video or, where it has none, the failure; one bad video hurts no other."""
    for video in videos:
        try:
            item: Item = work(video)
        except MalmmError as error:
            item = Failure(video, task, error)
        except Exception as error:  # a fault of ours, or a file stranger than we thought
            told = MalmmError(f"{video}: {type(error).__name__}: {error}", kind="Unexpected")
            item = Failure(video, task, told)
        yield item


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith("."):
                yield Path(parent, name)
