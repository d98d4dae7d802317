"""Results → text, JSON, JSON Lines, SRT, VTT or TSV."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from malmm_cli.errors import OUTPUT_EXISTS, MalmmError, OutputError, UsageError
from malmm_cli.files.atomic import new_file, writing
from malmm_cli.files.escapes import to_json
from malmm_cli.files.special import STREAMS, kind_of, open_stream
from malmm_cli.types import SCHEMA, MediaInfo, Result, Segment

__all__ = [
    "COLUMNS",
    "FORMATS",
    "HEADERS",
    "LINES",
    "SCHEMA",
    "STRUCTURED",
    "SUBTITLES",
    "Failure",
    "as_json",
    "check_name",
    "check_new_folder",
    "check_writable",
    "format_line",
    "format_whole",
    "frames_as_json",
    "make_folder",
    "open_whole",
    "rows",
    "target",
]


class Failure:
    """An item that gave no result, and why; stands where the result would."""

    def __init__(self, video: str, task: str, error: MalmmError) -> None:
        self.video = video
        self.task = task
        self.error = error


Item = Result | Failure


def as_json(item: Item) -> dict[str, Any]:
    """One item as an object of schema "malmm/1"."""
    if isinstance(item, Failure):
        error = {"kind": item.error.kind, "message": item.error.message}
        return {"schema": SCHEMA, "video": item.video, "task": item.task, "error": error}
    return item.to_dict()


def format_line(item: Item, form: str, *, several: bool) -> str:
    """One item in a form of LINES, whose items can be printed one by one."""
    return LINES[form](item, several)


def format_whole(items: Sequence[Item], form: str, *, several: bool) -> str:
    """All items in any of FORMATS; `several` says that more than one was asked for."""
    if form in WHOLE:
        return WHOLE[form](items, several)
    lines = [format_line(item, form, several=several) for item in items]
    return HEADERS.get(form, "") + "".join(lines)


def _text(item: Item, several: bool) -> str:
    """The text alone; where there are several, behind its question or its video."""
    if isinstance(item, Failure):
        return ""
    return f"{_cell(item.question or item.video)}\t{item.text}\n" if several else f"{item.text}\n"


def _jsonl(item: Item, several: bool) -> str:
    return to_json(as_json(item)) + "\n"


def rows(item: Item) -> list[tuple[str, ...]]:
    """The rows of a table with COLUMNS: one for each segment, or one for a failure."""
    if isinstance(item, Failure):
        return [(item.video, "", "", "", "", f"{item.error.kind}: {item.error.message}")]
    return [
        (item.video, f"{s.start:.3f}", f"{s.end:.3f}", item.question or "", s.text, "")
        for s in item.segments
    ]


def _tsv(item: Item, several: bool) -> str:
    return "".join("\t".join(map(_cell, row)) + "\n" for row in rows(item))


def _cell(text: str) -> str:
    return " ".join(text.split())


def _json(items: Sequence[Item], several: bool) -> str:
    objects = [as_json(item) for item in items]
    content = objects if several else objects[0]
    return to_json(content, indent=2) + "\n"


def _srt(items: Sequence[Item], several: bool) -> str:
    cues = enumerate(_cues(items, several), start=1)
    return "\n".join(
        f"{number}\n{_stamp(s.start, ',')} --> {_stamp(s.end, ',')}\n{text}\n"
        for number, (s, text) in cues
    )


def _vtt(items: Sequence[Item], several: bool) -> str:
    cues = "\n".join(
        f"{_stamp(s.start, '.')} --> {_stamp(s.end, '.')}\n{_escape(text)}\n"
        for s, text in _cues(items, several)
    )
    return f"WEBVTT\n\n{cues}"


def _escape(text: str) -> str:
    """WebVTT reads markup in cues."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


LINES: dict[str, Callable[[Item, bool], str]] = {"text": _text, "jsonl": _jsonl, "tsv": _tsv}
COLUMNS = ("video", "start", "end", "question", "text", "error")
HEADERS = {"tsv": "\t".join(COLUMNS) + "\n"}
SUBTITLES: dict[str, Callable[[Sequence[Item], bool], str]] = {"srt": _srt, "vtt": _vtt}
WHOLE = {"json": _json, **SUBTITLES}
STRUCTURED = ("json", "jsonl", "tsv")  # those in which failures stand too
FORMATS = ("text", "json", "jsonl", "srt", "vtt", "tsv")


def _cues(items: Sequence[Item], several: bool) -> Iterator[tuple[Segment, str]]:
    """Each segment and what is shown then; where there are several, below its question."""
    for item in items:
        if isinstance(item, Result):
            asked = f"{_cell(item.question)}\n" if several and item.question else ""
            for segment in item.segments:
                lines = filter(None, map(str.strip, segment.text.splitlines()))
                yield segment, asked + "\n".join(lines)  # a blank line would end the cue


def frames_as_json(
    info: MediaInfo, frames: Sequence[tuple[float, float, int, int]], warnings: Sequence[str]
) -> dict[str, Any]:
    """What `malmm frames --json` prints; frames are (seconds, source seconds, width, height)."""
    keys = ("seconds", "source_seconds", "width", "height")
    return {
        "schema": SCHEMA,
        "video": info.path,
        "duration": info.duration,
        "decoder": info.decoder,
        "frames": [dict(zip(keys, frame, strict=True)) for frame in frames],
        "warnings": list(warnings),
    }


def check_writable(
    path: Path, *, overwrite: bool, inputs: Sequence[str] = (), read_back: bool = False
) -> None:
    """Raise before any work is done for an output that exists or cannot be written.

    One that is `read_back` has to be a file; otherwise a pipe and what a terminal is will do.
    """
    for given in inputs:
        if os.path.exists(path) and os.path.exists(given) and os.path.samefile(path, given):
            raise UsageError(f"{path}: is the input file", hint="choose another file with -o")
    kind = kind_of(path)
    if kind == "a folder":
        raise UsageError(f"{path}: is a folder", hint="give a file name in that folder")
    if kind in STREAMS and not read_back:
        return
    if kind not in ("", "a file"):
        why = (
            "; it is read back later, so it must be a regular file"
            if kind in STREAMS
            else ", not a file"
        )
        raise UsageError(f"{path}: is {kind}{why}", hint="give a file name")
    if kind == "a file" and not overwrite:
        raise UsageError(
            f"{path}: exists",
            hint="use --overwrite, or choose another file with -o",
            kind=OUTPUT_EXISTS,
        )
    _check_place(path)


def check_new_folder(path: Path) -> None:
    """Raise before any work is done for a folder that is not empty or has no place."""
    with writing(path):
        if os.path.lexists(path) and (
            os.path.islink(path) or not os.path.isdir(path) or os.listdir(path)
        ):
            raise UsageError(
                f"{path}: exists and is not an empty folder",
                hint="choose a new folder",
                kind=OUTPUT_EXISTS,
            )
    _check_place(path)


def target(path: Path) -> Path:
    """The file that is written where a name was given: a link is followed."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path


def _check_place(path: Path) -> None:
    folder = target(path).parent
    if not os.path.isdir(folder):
        raise UsageError(f"{path}: no such folder: {folder}", hint="create it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{path}: the folder is not writable", hint="choose another folder")
    check_name(path)


def check_name(path: Path) -> None:
    """Raise OutputError for a name that the disk does not take."""
    with writing(path), suppress(FileNotFoundError):
        path.stat()


@contextmanager
def open_whole(path: Path, *, durable: bool = False, replace: bool = True) -> Iterator[IO[bytes]]:
    """A file that appears under its name when all is written, and not at all otherwise.

    Where the name is that of a link, the file that it names is replaced; a device or a pipe is
    written to. Without `replace`, a file that another program made meanwhile stays: OutputError.
    """
    with writing(path):
        if kind_of(path) in STREAMS:
            with open(path, "ab", opener=open_stream) as stream:
                yield stream
            return
        with new_file(target(path), durable=durable, replace=replace) as file:
            yield file


def make_folder(path: Path) -> None:
    """Make a folder, unless it is there."""
    with writing(path):
        path.mkdir(exist_ok=True)


def _stamp(seconds: float, comma: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{comma}{milliseconds % 1000:03}"
