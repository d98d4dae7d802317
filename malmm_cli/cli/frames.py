"""The command `malmm frames`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from malmm_cli.cli.console import emit, note, warn
from malmm_cli.cli.options import RunOptions, with_options
from malmm_cli.cli.running import failing, form_of, suggesting
from malmm_cli.cli.terminal import Terminal
from malmm_cli.errors import UsageError
from malmm_cli.files.escapes import to_json
from malmm_cli.formats import Failure, as_json
from malmm_cli.settings import Sampling
from malmm_cli.text.words import counted

_OPTIONS = (
    *(field.name for field in fields(Sampling)),
    *("format", "json", "overwrite", "quiet", "no_progress"),
)


@dataclass(frozen=True)
class _Options(RunOptions):
    """Those of other commands, but a list has fewer forms."""

    format: Annotated[
        str | None, typer.Option(metavar="text|json", help="Output format of the list.")
    ] = None


@with_options("caption", only=_OPTIONS, kind=_Options)
def frames(
    video: Annotated[str, typer.Argument(metavar="VIDEO", show_default=False)],
    sheet: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="SHEET.png", help="PNG file for a contact sheet."),
    ] = None,
    dump: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder to save every frame in as a PNG.")
    ] = None,
    *,
    options: RunOptions,
) -> None:
    """Show the frames that a model will see.

    -o FILE.png draws them on one sheet.

    \b
    malmm frames holiday.mp4 -o sheet.png
    malmm frames holiday.mp4 --fps 1 --from 1:00 --to 2:00 --json
    malmm frames holiday.mp4 --frames 20 --dump frames/
    """
    form = _form(options)
    events = Terminal.of(options)
    how: Any = options.changes()  # of which only the choice of frames is an option here
    from malmm_cli.media.files import check  # not needed for help

    def add(failure: Failure, **_: bool) -> None:
        if form == "json":
            emit(to_json(as_json(failure), indent=2) + "\n")

    fails = partial(failing, add, [video], "frames")
    with fails(), suggesting(video):
        check(video)
    with events.stage(video, ""), fails(but=UsageError):
        from malmm_cli.pipeline.frames import frames as look

        more: Any = {"overwrite": options.overwrite, "events": events}
        seen = look(video, sheet=sheet, dump=dump, **more, **how)
    if form == "json":
        emit(to_json(seen.to_dict(), indent=2) + "\n")
    else:
        emit("".join(f"{seconds:.3f}\n" for seconds, *_ in seen.frames))
    for warning in seen.warnings:
        warn(f"{video}: {warning}")
    if not options.quiet:
        info = seen.info
        note(
            f"{counted(len(seen.frames), 'frame')} of {info.duration:.2f} s, "
            f"{info.width}x{info.height}, read by {info.decoder}"
        )


def _form(options: RunOptions) -> str:
    """Text or JSON; the sheet's name says nothing, since it names a picture."""
    form = form_of(options) if options.format or options.json else "text"
    if form not in ("text", "json"):
        raise UsageError(f"frames can be listed as text or json, not {form}")
    return form
