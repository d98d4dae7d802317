"""What the files of an output folder are called: names of earlier runs, and new ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from malmm_cli.batch.files import Names
from malmm_cli.batch.inputs import seen_from
from malmm_cli.batch.lines import Line
from malmm_cli.batch.paths import OutputPaths
from malmm_cli.batch.plan import Planned

__all__ = ["name_files", "names_in"]

SHOWN = 20  # lines about names that differ from those of the videos


def names_in(paths: OutputPaths, planned: Sequence[Planned], kept: Mapping[str, Line]) -> Names:
    """The names that videos have in the output already, and those that are taken."""
    known = {}
    for item in planned if paths.folder else ():
        line = kept.get(item.task.id)
        if line and line.name:
            known[seen_from(paths.base, item.task.video)] = line.name
    taken = [line.name for line in kept.values() if line.name]
    return Names(known, [*taken, paths.results.stem], as_is=paths.beside)


def name_files(paths: OutputPaths, names: Names, items: Sequence[Planned]) -> list[str]:
    """Give the files of these items their names; lines about new ones that differ from the video's.

    All are named before the first item is done, so that the lines can be shown at once.
    """
    lines = []
    for item in items:
        video = item.task.video
        key, own = seen_from(paths.base, video), PurePosixPath(item.below, Path(video).stem)
        if key in names:
            continue
        plain, name = names.plain(key, item.below), names.of(key, item.below)
        if name != plain:
            reserved = plain.casefold() == paths.results.stem
            why = f"{paths.file(plain)} is {'reserved' if reserved else 'taken'}"
            lines.append(f"{video} goes to {paths.file(name)}: {why}")
        elif name != str(own):
            why = "not every file system allows its name"
            lines.append(f"{video} goes to {paths.file(name)}: {why}")
    if len(lines) > SHOWN:
        more = f'and {len(lines) - SHOWN} more: see "name" in {paths.results}'
        return [*lines[:SHOWN], more]
    return lines
