"""Annotation files of the paper's data sets → tasks, with its settings and results.

The files are those of the authors' repository (boheumd/MA-LMM, folder data): one JSON object each,
from id to record.
"""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct, defstruct

from malmm_cli.errors import UsageError
from malmm_cli.files.schema import SchemaError, checked
from malmm_cli.files.strict_json import NotJsonError, RefusedError, load
from malmm_cli.settings import Changes
from malmm_cli.text.words import known_names
from malmm_cli.types import VIDEO_SUFFIXES, Task

__all__ = ["LVU_TASKS", "SETS", "SPLITS", "Set", "read_set"]

SPLITS = ("train", "val", "test")
LVU_TASKS = ("relationship", "way_speaking", "scene", "director", "genre", "writer", "year")

HISTORY, STRIDE = 100, 20  # seconds of an LVU clip, and from one to the next
EXTRACTED = 10  # frames a second that `num_frames` counts

# What the authors drop from a question, and how many words they keep.
_DROPPED = str.maketrans("", "", '.!"()*#:;~')
LONGEST = 50

# Videos that the authors leave out.
_LEFT_OUT = {
    *("P28-cam01-P28_cereals", "P27-stereo-P27_milk_ch0", "P28-cam02-P28_cereals"),
    *("AfiVmAjfTNs", "cjwtcDKTQM8"),
}

Label = Annotated[float, Meta(ge=-1e300, le=1e300)] | int | str  # a text, or a number as one
Number = Annotated[float, Meta(ge=-1e9, le=1e9)]


class _Part(Struct):
    """A video of a split, where a file holds several."""

    subset: str = ""


class _Movie(Struct):
    """A video of LVU, besides its labels."""

    duration: int
    num_frames: Number


class _Question(Struct):
    """A question about a video."""

    video: str
    question: str
    answer: Label
    answer_type: Label


class _Caption(Struct):
    """A caption of a video or of a segment; None or "" for one that was not published."""

    video: str
    caption: Label | None
    segment: str | None = None
    start_time: Number | None = None
    end_time: Number | None = None
    duration: Number = math.inf


Records = Mapping[str, Mapping[str, Any]]
Videos = Callable[[str], str]


@dataclass(frozen=True)
class Set:
    """A data set: where its annotation lies in a folder, how to run it, what the paper got.

    `questions` and `captions` are changes to a model's default settings for either. `split` is the
    one that the paper's results are for. `paper` holds them as printed, from a table
    of MA-LMM (CVPR 2024); LVU's are those of its tasks.
    """

    read: Callable[[Records, Videos, str, str], Iterator[Task]]
    file: str
    table: int
    paper: Mapping[str, float]
    split: str = "test"
    questions: Changes = field(default_factory=Changes)
    captions: Changes = field(default_factory=Changes)
    first_word: bool = False
    parts: tuple[str, ...] = ()


def read_set(
    path: str | os.PathLike[str],
    name: str,
    *,
    videos: str | os.PathLike[str] | None = None,
    split: str | None = None,
    part: str | None = None,
) -> list[Task]:
    """The tasks of one of SETS, from its annotation file or the folder that holds it.

    Videos are looked for under `videos`, by default where the annotation is, by their ids; one that
    is not there gets a path that is not. `part` is a task of LVU. Raises UsageError for names that
    are not known, a file of another form, and where no video at all is found.
    """
    if name not in SETS:
        raise UsageError(f"unknown data set {name!r}", hint=known_names(name, SETS))
    known = SETS[name]
    split = split or known.split
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}", hint=known_names(split, SPLITS))
    if part is not None and part not in known.parts:
        hint = known_names(part, known.parts) if known.parts else f"{name} has no tasks"
        raise UsageError(f"unknown task {part!r}", hint=hint)
    if part is None and known.parts:
        raise UsageError(
            f"{name} has several tasks", hint=f"choose one: --task {'|'.join(known.parts)}"
        )
    path = Path(path)
    file = path / known.file.format(split=split) if path.is_dir() else path
    advice = None if split == known.split else f"the paper's results are for --split {known.split}"
    records = _records(file, advice)
    find = _Finder(Path(videos) if videos is not None else file.parent)
    try:
        tasks = list(known.read(records, find, split, part or ""))
    except SchemaError as error:
        raise UsageError(f"{file}: is not a {name} annotation file: {error}") from error
    if not tasks:
        there = ", ".join(sorted({str(r["subset"]) for r in records.values() if "subset" in r}))
        raise UsageError(
            f"{file}: no entries for {part or name}, split {split}",
            hint=f"available splits: {there}" if there else advice,
        )
    if not find.found:
        raise UsageError(
            f"{find.folder}: none of the videos exist, for example {tasks[0].video}",
            hint="--videos names the folder that holds them",
        )
    return tasks


def _records(file: Path, advice: str | None) -> Records:
    try:
        return checked(load(file.read_bytes()), dict[str, dict[str, Any]])
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror or error}", hint=advice) from error
    except SchemaError as error:
        raise UsageError(f"{file}: not a JSON object mapping ids to records") from error
    except NotJsonError as error:
        raise UsageError(f"{file}: is {error}") from error
    except RefusedError as error:
        raise UsageError(f"{file}: {error}") from error


class _Finder:
    """Finds videos under a folder by id: the file's name, or its path with - between its parts."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder")
        self.folder = folder
        self.found = 0
        self._files: dict[str, str] = {}
        others: dict[str, str] = {}  # files that may be videos too, by their content
        for parent, folders, names in os.walk(folder):
            folders.sort()
            for file in sorted(names):
                path = Path(parent, file)
                parts = path.relative_to(folder).with_suffix("").parts
                known = path.suffix.lower() in VIDEO_SUFFIXES
                for key in (path.stem, "-".join(parts)):
                    if path.suffix != ".json":
                        files = self._files if known else others
                        files.setdefault(unicodedata.normalize("NFC", key), str(path))
        self._files = others | self._files

    def __call__(self, name: str) -> str:
        file = self._files.get(unicodedata.normalize("NFC", name))
        self.found += file is not None
        return file or str(self.folder / name)


def _lvu(records: Records, find: Videos, split: str, part: str) -> Iterator[Task]:
    """Clips of `HISTORY` seconds every `STRIDE`, each with the label of its video."""
    labels = _labels(_label(r, part) for r in records.values() if part in r)
    for name, record in records.items():
        if part not in record or not _is_of(record, split):
            continue
        movie = checked(record, _Movie)
        last = (movie.num_frames - 1) / EXTRACTED
        for start in (0, *range(STRIDE, movie.duration - HISTORY + 1, STRIDE)):
            end = min(start + HISTORY - 1, movie.duration, last)
            yield Task(
                f"{name}_{start}",
                find(name),
                prompt=f"what is the {part} of the movie?",
                answers=(_label(record, part),),
                kind=part,
                choices=labels,
                start=float(start),
                end=float(end),
            )


def _classes(label: str, prompt: str) -> Callable[[Records, Videos, str, str], Iterator[Task]]:
    """A reader of whole videos, each with one of a few labels."""

    def read(records: Records, find: Videos, split: str, part: str) -> Iterator[Task]:
        labels = _labels(_label(record, label) for record in records.values())
        for name, record in records.items():
            # COIN's videos that the authors could not get have no such count
            missing = "subset" in record and "num_frames_actual" not in record
            if name not in _LEFT_OUT and _is_of(record, split) and not missing:
                answers = (_label(record, label),)
                yield Task(name, find(name), prompt=prompt, answers=answers, choices=labels)

    return read


def _questions(records: Records, find: Videos, split: str, part: str) -> Iterator[Task]:
    for name, record in records.items():
        asked = checked(record, _Question)
        yield Task(
            name,
            find(asked.video),
            question=_cleaned(asked.question),
            answers=(str(asked.answer),),
            kind=str(asked.answer_type),
        )


def _cleaned(question: str) -> str:
    """A question in the form in which the authors trained with it."""
    words = question.lower().translate(_DROPPED).rstrip(" ").split(" ")
    return " ".join(words[:LONGEST])


def _captions(records: Records, find: Videos, split: str, part: str) -> Iterator[Task]:
    """One task for each video, or each of its segments, with all its captions.

    Those of YouCook2's test videos were never published: they are empty.
    """
    pieces: dict[str, list[_Caption]] = {}
    for record in records.values():
        caption = checked(record, _Caption)
        if caption.caption not in (None, ""):
            pieces.setdefault(caption.segment or caption.video, []).append(caption)
    for name, captions in pieces.items():
        first = captions[0]
        start, end = first.start_time, first.end_time
        yield Task(
            name,
            find(first.video),
            answers=tuple(str(caption.caption) for caption in captions),
            start=None if start is None else max(start, 0.0),
            end=None if end is None else min(end, first.duration),
        )


def _label(record: Mapping[str, Any], name: str) -> str:
    """A label of a video; raises SchemaError where it is missing, or not one."""
    return str(getattr(checked(record, _labelled(name)), name))


@cache
def _labelled(name: str) -> type[Struct]:
    """A record with a label of that name."""
    return defstruct("Labelled", [(name, Label)])


def _labels(names: Iterator[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


def _is_of(record: Mapping[str, Any], split: str) -> bool:
    """Whether a record is of a split; those without one are of the split of their file."""
    return (checked(record, _Part).subset or split)[:3] == split[:3]


def _as_printed(tokens: int, memory: int = 20, frames: int = 100) -> Changes:
    """The paper's settings for a data set; the rest are the model's."""
    return {"frames": frames, "memory": memory, "max_new_tokens": tokens}


_LVU = {
    "relationship": 58.2,
    "way_speaking": 44.8,
    "scene": 80.3,
    "director": 74.6,
    "genre": 61.0,
    "writer": 70.4,
    "year": 51.9,
}

# Lengths are one token less than the reference's, which counts the one that starts a text.
_ANSWERS = _as_printed(9, memory=10, frames=20)
SETS = {
    "lvu": Set(_lvu, "{split}.json", 1, _LVU, captions=_as_printed(4), parts=LVU_TASKS),
    "breakfast": Set(
        _classes("class_name", "what type of breakfast is shown in the video?"),
        *("{split}.json", 2, {"top-1": 93.0}, "val"),
        captions=_as_printed(19),
    ),
    "coin": Set(
        _classes("target", "what is the activity in the video?"),
        *("COIN.json", 2, {"top-1": 93.2}, "val"),
        captions=_as_printed(19),
    ),
    "msrvtt-qa": Set(
        *(_questions, "qa_{split}.json", 3, {"top-1": 48.5}),
        questions=_ANSWERS,
        first_word=True,
    ),
    "msvd-qa": Set(
        *(_questions, "qa_{split}.json", 3, {"top-1": 60.6}),
        questions=_ANSWERS,
        first_word=True,
    ),
    "activitynet-qa": Set(
        *(_questions, "qa_{split}.json", 3, {"top-1": 49.8}),
        questions=_ANSWERS,
    ),
    "msrvtt-cap": Set(
        *(_captions, "cap_{split}.json", 4, {"METEOR": 33.4, "CIDEr": 74.6}),
        captions=_as_printed(49, memory=40, frames=80),
    ),
    "msvd-cap": Set(
        *(_captions, "cap_{split}.json", 4, {"METEOR": 51.0, "CIDEr": 179.1}),
        captions=_as_printed(49, memory=40, frames=80),
    ),
    "youcook2": Set(
        *(_captions, "cap_{split}.json", 4, {"METEOR": 17.6, "CIDEr": 131.2}, "val"),
        captions=_as_printed(29, memory=40, frames=80),
    ),
}
