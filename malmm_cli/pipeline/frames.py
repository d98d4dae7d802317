"""The frames of a video that a model would be given, without a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Unpack

from malmm_cli.errors import UsageError
from malmm_cli.events import SILENT, Events
from malmm_cli.formats import check_new_folder, check_writable
from malmm_cli.media import contact_sheet
from malmm_cli.media.contact_sheet import Frames
from malmm_cli.models import registry
from malmm_cli.pipeline.memory_header import is_memory_file
from malmm_cli.settings import Choice

__all__ = ["frames"]


def frames(
    video: str | Path,
    *,
    sheet: str | Path | None = None,
    dump: str | Path | None = None,
    overwrite: bool = False,
    events: Events = SILENT,
    **changes: Unpack[Choice],
) -> Frames:
    """The frames of a video that a model would be given, as `malmm frames` lists them.

    They are drawn on the PNG file `sheet` and saved as PNGs in the new folder `dump`, where these
    are given; `overwrite` replaces a `sheet`. Without `changes` they are those for a caption.
    Raises UsageError for arguments that will not do, MediaError for the video.
    """
    video = os.fspath(video)
    settings = registry.defaults().settings("caption", **changes)
    if is_memory_file(video):
        raise UsageError(f"{video}: is a memory file, not a video", hint="give the video")
    if sheet is not None:
        sheet = Path(sheet)
        if sheet.suffix.lower() != ".png":
            raise UsageError(
                f"{sheet}: the contact sheet must be a .png file",
                hint="use a file name ending in .png",
            )
        check_writable(sheet, overwrite=overwrite, inputs=[video])
    if dump is not None:
        dump = Path(dump)
        check_new_folder(dump)
    return contact_sheet.look(
        video, settings, sheet=sheet, dump=dump, overwrite=overwrite, events=events
    )
