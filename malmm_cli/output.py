"""Results → text, JSON, JSON lines, SRT, VTT or TSV; and files written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from malmm_cli.data import MediaInfo, Result, Segment
from malmm_cli.errors import MalmmError, OutputError, UsageError

__all__ = [
    "FORMATS",
    "HEADERS",
    "LINES",
    "SCHEMA",
    "Failure",
    "as_json",
    "check_writable",
    "format_line",
    "format_whole",
    "frames_as_json",
    "open_lines",
    "open_whole",
]

SCHEMA = "malmm/1"


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
    return {
        "schema": SCHEMA,
        "video": item.video,
        "task": item.task,
        "prompt": item.prompt,
        "question": item.question,
        "text": item.text,
        "segments": [
            {"start": _round(s.start), "end": _round(s.end), "text": s.text} for s in item.segments
        ],
        "candidates": list(item.candidates),
        "model": item.model,
        "revision": item.revision,
        "device": item.device,
        "dtype": item.dtype,
        "memory": {"length": item.memory, "policy": item.policy, "banks": item.banks},
        "frames": {
            "used": item.frames,
            "first": _round(item.first),
            "last": _round(item.last),
            "duration": _round(item.duration),
        },
        "seconds": {stage: _round(seconds) for stage, seconds in item.seconds.items()},
        "warnings": list(item.warnings),
    }


def format_line(item: Item, form: str, *, several: bool) -> str:
    """One item in a form of LINES, whose items can be printed as they come."""
    return LINES[form](item, several)


def format_whole(items: Sequence[Item], form: str) -> str:
    """All items in any of FORMATS."""
    if form in WHOLE:
        return WHOLE[form](items)
    lines = [format_line(item, form, several=len(items) > 1) for item in items]
    return HEADERS.get(form, "") + "".join(lines)


def _text(item: Item, several: bool) -> str:
    """The text alone; where there are several, behind its question or its video."""
    if isinstance(item, Failure):
        return ""
    return f"{item.question or item.video}\t{item.text}\n" if several else f"{item.text}\n"


def _jsonl(item: Item, several: bool) -> str:
    return json.dumps(as_json(item), ensure_ascii=False) + "\n"


def _tsv(item: Item, several: bool) -> str:
    if isinstance(item, Failure):
        return ""
    rows = [
        (item.video, f"{s.start:.3f}", f"{s.end:.3f}", item.question or "", s.text)
        for s in item.segments
    ]
    return "".join("\t".join(" ".join(cell.split()) for cell in row) + "\n" for row in rows)


def _json(items: Sequence[Item]) -> str:
    objects = [as_json(item) for item in items]
    content = objects[0] if len(objects) == 1 else objects
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _srt(items: Sequence[Item]) -> str:
    cues = enumerate(_segments(items), start=1)
    return "\n".join(
        f"{number}\n{_stamp(s.start, ',')} --> {_stamp(s.end, ',')}\n{s.text}\n"
        for number, s in cues
    )


def _vtt(items: Sequence[Item]) -> str:
    cues = "\n".join(
        f"{_stamp(s.start, '.')} --> {_stamp(s.end, '.')}\n{_escape(s.text)}\n"
        for s in _segments(items)
    )
    return f"WEBVTT\n\n{cues}"


def _escape(text: str) -> str:
    """WebVTT reads markup in cues."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


LINES: dict[str, Callable[[Item, bool], str]] = {"text": _text, "jsonl": _jsonl, "tsv": _tsv}
HEADERS = {"tsv": "video\tstart\tend\tquestion\ttext\n"}
WHOLE: dict[str, Callable[[Sequence[Item]], str]] = {"json": _json, "srt": _srt, "vtt": _vtt}
FORMATS = ("text", "json", "jsonl", "srt", "vtt", "tsv")


def _segments(items: Sequence[Item]) -> list[Segment]:
    """The segments of one video's results; subtitles of several make no sense."""
    if len({item.video for item in items}) > 1:
        raise UsageError("subtitles are for one video", hint="give one, or use --format jsonl")
    return [s for item in items if isinstance(item, Result) for s in item.segments]


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


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Raise before any work is done for an output that stands in the way or has no place."""
    if path.is_dir():
        raise UsageError(f"{path}: is a folder", hint="name a file in it")
    if path.exists() and not overwrite:
        raise UsageError(
            f"{path}: exists", hint="--overwrite replaces it, -o names another", kind="OutputExists"
        )
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}", hint="make it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: the folder cannot be written to")


@contextmanager
def open_whole(path: Path) -> Iterator[IO[str]]:
    """A file that appears under its name when all is written, and not at all otherwise."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            yield file
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def open_lines(path: Path) -> Iterator[Callable[[str], None]]:
    """Writes whole lines as they come; what stands in the file is always complete."""
    try:
        with path.open("w", encoding="utf-8") as file:

            def write(line: str) -> None:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())

            yield write
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _round(seconds: float) -> float:
    return round(seconds, 3)


def _stamp(seconds: float, comma: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{comma}{milliseconds % 1000:03}"
