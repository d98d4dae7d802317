"""The command `malmm cache`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from malmm_cli.cli.console import emit, note
from malmm_cli.errors import UsageError
from malmm_cli.files.escapes import on_one_line, to_json
from malmm_cli.text.words import counted

if TYPE_CHECKING:
    from malmm_cli.pipeline.feature_cache import Entry, FeatureCache

app = typer.Typer(help="List and remove cached features.", rich_markup_mode=None)

_Folder = Annotated[
    Path | None,
    typer.Option("--cache", metavar="FOLDER", envvar="MALMM_CACHE", help="Cache folder."),
]


@app.callback()
def cache() -> None:
    """List and remove cached features."""


@app.command("ls", hidden=True)
@app.command("list")
def list_entries(
    cache: _Folder = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the cached features, most recently used first.

    \b
    malmm cache list --cache features
    """
    from malmm_cli.hub import size_text

    kept = _cache(cache)
    entries = kept.entries()
    if json:
        rows = [
            {
                "key": entry.key,
                "video": entry.video,
                "model": entry.model,
                "frames": entry.frames,
                "size": entry.size,
                "used": _date(entry.used),
            }
            for entry in entries
        ]
        emit(to_json(rows, indent=2) + "\n")
        return
    for entry in entries:
        emit(_row(entry))
    note(
        f"{counted(len(entries), 'entry', 'entries')}, "
        f"{size_text(sum(entry.size for entry in entries))}"
    )
    if broken := len(kept.broken()):
        number = counted(broken, "entry", "entries")
        note(f"{number} damaged or unfinished; `malmm cache rm --all` removes")


@app.command("rm")
def remove(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="KEY|VIDEO", show_default=False)
    ] = None,
    cache: _Folder = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all entries.")] = False,
) -> None:
    """Remove entries by key or by video, and print the removed keys.

    \b
    malmm cache rm --cache features lecture.mp4
    malmm cache rm --cache features --all
    """
    if bool(names) == everything:
        raise UsageError("nothing to remove was given", hint="give keys or videos, or use --all")
    kept = _cache(cache)
    entries = kept.entries()
    wanted = {name: {name, os.path.abspath(name)} for name in names or ()}
    for name, known in wanted.items():
        if known.isdisjoint(x for entry in entries for x in (entry.key, entry.video)):
            raise UsageError(
                f"{name}: not in {kept.folder}", hint="`malmm cache list` lists all entries"
            )
    for entry in entries:
        if everything or any({entry.key, entry.video} & known for known in wanted.values()):
            kept.remove(entry)
            emit(f"{entry.key}\n")
    if everything:
        kept.remove_broken()


def _row(entry: Entry) -> str:
    """One line; on a terminal, model and video are on lines of their own."""
    from malmm_cli.hub import size_text

    date, frames = _date(entry.used), counted(entry.frames, "frame")
    parts = ["  ".join((entry.key, date, frames, size_text(entry.size)))]
    parts += [on_one_line(entry.model), on_one_line(entry.video)]
    return ("\n    " if sys.stdout.isatty() else "  ").join(parts) + "\n"


def _cache(folder: Path | None) -> FeatureCache:
    if folder is None:
        raise UsageError(
            "no cache folder given", hint="give --cache FOLDER, or set MALMM_CACHE=FOLDER"
        )
    folder = folder.expanduser()
    if not os.path.isdir(folder):
        raise UsageError(
            f"{folder}: no such folder",
            hint="choose another folder with --cache FOLDER",
            option="cache",
        )
    from malmm_cli.pipeline.feature_cache import FeatureCache

    return FeatureCache(folder)


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
