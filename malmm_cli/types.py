"""The values passed between modules: media info, frames, texts, results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line's help needs these classes, and no arrays
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SCHEMA", "VIDEO_SUFFIXES", "Frame", "MediaInfo", "Result", "Segment", "Task"]

SCHEMA = "malmm/1"  # of JSON: keys may be added, none change

# what a file in a folder is called that is taken for a video before it is opened
VIDEO_SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".hevc", ".m2ts"),
    *(".m2v", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm"),
    *(".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds, found by reading its packets and no container header.

    `seconds` (T,) float64, ascending, starts at 0.0: the time of every picture that is shown,
    counted from the first one. `duration` runs from the first picture to the end of the last.
    `source_start` is the first picture's own timestamp in the file. `width` and `height` are
    those of the display: rotated, with square pixels. `probe_seconds` is how long it took to find
    all this.
    """

    path: str
    decoder: str
    width: int
    height: int
    duration: float
    source_start: float
    seconds: NDArray[np.float64] = field(repr=False)
    warnings: tuple[str, ...] = ()
    probe_seconds: float = field(default=0.0, repr=False, compare=False)


@dataclass(frozen=True)
class Frame:
    """One picture: `pixels` (H, W, 3) uint8 RGB, upright, square pixels, and its time."""

    seconds: float
    source_seconds: float
    pixels: NDArray[np.uint8] = field(repr=False)


@dataclass(frozen=True)
class Segment:
    """A piece of text about the video from `start` to `end` seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Result:
    """A caption, or the answer to one question, with all that it came from.

    `task` is "caption" or "ask"; `question` is None for a caption. `candidates` are all texts of
    the search, best first; `segments` cover the part of the video that was looked at. `frames`
    counts the pictures used, from `first` to `last` seconds of `duration`. `seconds` says how long
    each stage took, "decode" how long frames were waited for: they are decoded beside the rest.
    `malmm` is the version that made it; None where an earlier version did not say so.
    `memory_seed` is None where nothing about the memory is random.
    """

    video: str
    task: str
    prompt: str
    question: str | None
    text: str
    candidates: tuple[str, ...]
    segments: tuple[Segment, ...]
    model: str
    revision: str | None
    device: str
    dtype: str
    memory: int
    policy: str
    banks: str
    frames: int
    first: float
    last: float
    duration: float
    seconds: dict[str, float]
    warnings: tuple[str, ...] = ()
    malmm: str | None = None
    merge: str = "token"
    mean: str = "weighted"
    fill: str = "mean"
    memory_seed: int | None = None
    looked_again: tuple[tuple[float, float], ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as an object of schema "malmm/1", as `--json` prints it."""
        version = {} if self.malmm is None else {"malmm": self.malmm}
        return {
            "schema": SCHEMA,
            **version,
            "video": self.video,
            "task": self.task,
            "prompt": self.prompt,
            "question": self.question,
            "text": self.text,
            "segments": [
                {"start": _rounded(s.start), "end": _rounded(s.end), "text": s.text}
                for s in self.segments
            ],
            "candidates": list(self.candidates),
            "model": self.model,
            "revision": self.revision,
            "device": self.device,
            "dtype": self.dtype,
            "memory": self._memory(),
            "frames": {
                "used": self.frames,
                "first": _rounded(self.first),
                "last": _rounded(self.last),
                "duration": _rounded(self.duration),
            },
            "seconds": {stage: _rounded(seconds) for stage, seconds in self.seconds.items()},
            "warnings": list(self.warnings),
            **self._again(),
        }

    def _again(self) -> dict[str, Any]:
        """The moments that were looked at again, where that was asked for."""
        if self.looked_again is None:
            return {}
        spans = [{"start": _rounded(a), "end": _rounded(b)} for a, b in self.looked_again]
        return {"looked_again": spans}

    def _memory(self) -> dict[str, Any]:
        """How the video was remembered; without what is usual, and was left out before."""
        found: dict[str, Any] = {"length": self.memory, "policy": self.policy, "banks": self.banks}
        found |= {} if self.merge == Result.merge else {"merge": self.merge}
        found |= {} if self.mean == Result.mean else {"mean": self.mean}
        found |= {} if self.fill == Result.fill else {"fill": self.fill}
        return found | ({} if self.memory_seed is None else {"seed": self.memory_seed})


def _rounded(seconds: float) -> float:
    return round(seconds, 3)


@dataclass(frozen=True)
class Task:
    """One question or prompt about one video, as a line of a data set has it.

    Neither `question` nor `prompt` means a caption. Any of `answers` is right; `choices` are those
    to choose from. `evidence` says from when to when the answer can be seen, `start` and `end` what
    part of the video to look at, all in seconds from the first picture.
    """

    id: str
    video: str
    question: str | None = None
    prompt: str | None = None
    answers: tuple[str, ...] = ()
    kind: str | None = None
    choices: tuple[str, ...] = ()
    evidence: tuple[float, float] | None = None
    start: float | None = None
    end: float | None = None
