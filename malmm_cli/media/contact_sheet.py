"""The frames that a model sees, as PNG files or on one sheet."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw

from malmm_cli import media
from malmm_cli.errors import UsageError
from malmm_cli.events import SILENT, Events
from malmm_cli.files.atomic import new_folder
from malmm_cli.formats import frames_as_json, open_whole
from malmm_cli.media.sampling import choose_for
from malmm_cli.settings import Settings
from malmm_cli.types import Frame, MediaInfo

__all__ = ["FrameInfo", "Frames", "look"]

_MOST_ON_SHEET = 400
_THUMBNAIL = (160, 120)  # at most so wide and so high
_LABEL = 14  # pixels of height for the time under each picture


class FrameInfo(NamedTuple):
    """When a frame is shown, from the first picture and in the file, and its size for display."""

    seconds: float
    source_seconds: float
    width: int
    height: int


@dataclass
class Frames:
    """The chosen frames of a video, and warnings."""

    info: MediaInfo
    frames: list[FrameInfo] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as an object of schema "malmm/1", as `malmm frames --json` prints it."""
        return frames_as_json(self.info, self.frames, self.warnings)


def look(
    video: str,
    settings: Settings,
    *,
    sheet: Path | None = None,
    dump: Path | None = None,
    overwrite: bool = False,
    events: Events = SILENT,
) -> Frames:
    """Decode the frames that settings choose; save them as PNGs in `dump` and small on `sheet`.

    Both appear whole or not at all. `dump` must not exist, or be empty; `overwrite` replaces a
    `sheet`.
    """
    with events.stage("opening", ""):
        info = media.probe(video, settings.sampling.decoder)
    times = choose_for(info, settings.sampling)
    if sheet and len(times) > _MOST_ON_SHEET:
        raise UsageError(
            f"{sheet}: a sheet holds at most {_MOST_ON_SHEET} frames, not {len(times)}",
            hint=f"use --frames {_MOST_ON_SHEET}, or --dump FOLDER to save all",
        )
    seen = Frames(info, warnings=list(info.warnings))
    thumbnails = []
    with (
        new_folder(dump) if dump else nullcontext() as folder,
        events.stage("reading", "frames"),
    ):
        for number, frame in enumerate(
            media.read(info, times.tolist(), None, seen.warnings.append)
        ):
            height, width = frame.pixels.shape[:2]
            seen.frames.append(FrameInfo(frame.seconds, frame.source_seconds, width, height))
            if folder:
                Image.fromarray(frame.pixels).save(folder / f"{number:05}.png", compress_level=1)
            if sheet:
                thumbnails.append(_thumbnail(frame))
            events.progress(video, number + 1, len(times), "frames")
    if sheet:
        _save_sheet(thumbnails, sheet, overwrite=overwrite)
    return seen


def _thumbnail(frame: Frame) -> Image.Image:
    picture = Image.fromarray(frame.pixels)
    picture.thumbnail(_THUMBNAIL)
    labelled = Image.new("RGB", (picture.width, picture.height + _LABEL), "white")
    labelled.paste(picture)
    minutes, seconds = divmod(frame.seconds, 60)
    text = f"{int(minutes)}:{seconds:04.1f}"
    ImageDraw.Draw(labelled).text((2, picture.height + 1), text, fill="black")
    return labelled


def _save_sheet(thumbnails: list[Image.Image], path: Path, *, overwrite: bool) -> None:
    """All pictures in rows, as square a sheet as their number allows."""
    width = max(picture.width for picture in thumbnails) + 4
    height = max(picture.height for picture in thumbnails) + 4
    count = len(thumbnails)
    columns = min(count, max(1, round((count * height / width * 1.5) ** 0.5)))
    rows = -(-count // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for number, picture in enumerate(thumbnails):
        row, column = divmod(number, columns)
        sheet.paste(picture, (column * width + 2, row * height + 2))
    with open_whole(path, replace=overwrite) as file:
        sheet.save(file, format="PNG")
