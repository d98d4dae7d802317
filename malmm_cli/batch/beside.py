"""Output beside the videos: the folder that holds them all is the output folder."""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from malmm_cli.batch.folder import Files, in_the_way
from malmm_cli.batch.inputs import is_tasks, seen_from
from malmm_cli.batch.job import Engine, Job, Outcome, failed
from malmm_cli.batch.lines import Line, Lines, read_lines
from malmm_cli.batch.naming import names_in
from malmm_cli.batch.paths import SUFFIXES, OutputPaths, checked_paths, output_paths
from malmm_cli.batch.plan import Planned, Sorted
from malmm_cli.batch.state import claimed
from malmm_cli.errors import OUTPUT_EXISTS, MalmmError, OutputError, UsageError
from malmm_cli.formats import FORMATS, check_writable
from malmm_cli.text.words import known_names

__all__ = ["chosen_paths", "own_files", "spared", "sparing"]

RESULTS = ".malmm-batch.jsonl"


def chosen_paths(
    output: str | None, form: str | None, inputs: Sequence[str], *, beside: bool, overwrite: bool
) -> OutputPaths:
    """The paths of an output, or those beside the videos; UsageError unless it is one of the two.

    Files beside videos may be a person's own subtitles: `overwrite`, which replaces files that
    malmm did not write, is refused there.
    """
    if beside and output is not None:
        raise UsageError("-o and --beside exclude each other", hint="use only one of them")
    if output is not None:
        return output_paths(output, form, inputs)
    if not beside:
        raise UsageError(
            "no output given: -o is missing", hint="give -o FILE.jsonl, -o FOLDER/ or --beside"
        )
    if overwrite:
        raise UsageError(
            "--overwrite and --beside exclude each other: it could replace files of yours",
            hint="remove the files that are to be written again",
        )
    return _beside_paths(inputs, form)


def _beside_paths(inputs: Sequence[str], form: str | None = None) -> OutputPaths:
    """The paths of an output beside the videos: the folder that holds them is that of the output.

    That is the input folder, the one of the files given, or the one that a pattern begins with.
    Raises UsageError where the inputs have several, for lists and for files of tasks, OutputError
    where it is not writable.
    """
    if form is not None and form not in FORMATS:
        raise UsageError(f"unknown format {form!r}", hint=known_names(form, FORMATS))
    if "-" in inputs:
        raise _is_list("-")
    folders = {os.path.abspath(_folder_of(given)): _folder_of(given) for given in inputs}
    if len(folders) != 1:
        raise UsageError(
            f"--beside needs all videos below one folder, not {', '.join(folders.values())}",
            hint="run it once for each folder, or use -o FOLDER/",
        )
    (folder,) = map(Path, folders.values())
    paths = checked_paths(OutputPaths(folder / RESULTS, folder, form or "srt", beside=True))
    if tasks := [given for given in inputs if is_tasks(given)]:
        own = own_files(paths, read_lines(paths.results).kept)
        for given in tasks:
            if os.path.abspath(given) not in own:
                raise _is_list(given)
    if folder.is_dir():  # one that does not exist is named as an input
        check_writable(paths.results, overwrite=True, read_back=True)
    return paths


def own_files(paths: OutputPaths, kept: Mapping[str, Line]) -> frozenset[str]:
    """Absolute paths of files beside videos, in any format, that the lines stand for: no inputs."""
    names = {line.name for line in kept.values() if line.name} if paths.beside else ()
    return frozenset(
        os.path.abspath(paths.base / f"{name}.{suffix}")
        for name in names
        for suffix in SUFFIXES.values()
    )


def spared(
    paths: OutputPaths,
    lines: Lines,
    planned: Sequence[Planned],
    found: Sorted,
    *,
    retry_failed: bool,
) -> tuple[Sorted, Mapping[str, MalmmError]]:
    """What is to be done, and why some of its videos can have no file beside them.

    A file that malmm did not write is never replaced. While it is there, that is a known failure
    once it has been reported.
    """
    refused = _refused(paths, lines, planned, [item for item, _ in found.todo])
    known = {
        item.task.id
        for item, _ in found.todo
        if (error := refused.get(item.task.video)) and error.kind == OUTPUT_EXISTS
        if (line := lines.kept.get(item.task.id))
        and line.kind == OUTPUT_EXISTS
        and not retry_failed
    }
    todo = [(item, why) for item, why in found.todo if item.task.id not in known]
    broken = [item for item, _ in found.todo if item.task.id in known]
    return replace(found, todo=todo, broken=[*found.broken, *broken]), refused


def _refused(
    paths: OutputPaths, lines: Lines, planned: Sequence[Planned], todo: Sequence[Planned]
) -> dict[str, MalmmError]:
    """Why videos can have no file beside them, by their paths."""
    if not paths.beside:
        return {}
    files, ours = Files(paths, lines.kept), claimed(paths.state)
    names = names_in(paths, planned, lines.kept)
    found: dict[str, MalmmError] = {}
    for item in todo:
        name = names.of(seen_from(paths.base, item.task.video), item.below)
        file = paths.file(name)
        if files.strangers([name], ours):
            found[item.task.video] = in_the_way(paths, file)
        elif file.parent.is_dir() and not os.access(file.parent, os.W_OK):
            message = f"{file}: the folder is not writable"
            found[item.task.video] = OutputError(message, hint="use -o FOLDER/")
    return found


def sparing(engine: Engine, refused: Mapping[str, MalmmError]) -> Engine:
    """An engine that fails jobs about these videos at once, without a worker."""

    def run(next_job: Callable[[], Job | None]) -> Iterator[tuple[Job, Outcome]]:
        waiting: deque[Job] = deque()

        def next_free() -> Job | None:
            while (job := next_job()) and job.video in refused:
                waiting.append(job)
            return job

        def fail_waiting() -> Iterator[tuple[Job, Outcome]]:
            while waiting:
                job = waiting.popleft()
                yield job, failed(job, refused[job.video])

        going = True
        while going:  # once more, if those that failed are to be tried again
            for done in engine(next_free):
                yield done
                yield from fail_waiting()
            going = bool(waiting)
            yield from fail_waiting()

    return run


def _is_list(given: str) -> UsageError:
    return UsageError(
        f"--beside needs a folder, but {given} is a list",
        hint="give the folder of the videos, or use -o FOLDER/",
    )


def _folder_of(given: str) -> str:
    """A folder itself; that of a file; that of a pattern without the parts with wildcards."""
    if os.path.isdir(given):
        return given
    parts = Path(given).parts[:-1]
    if not os.path.lexists(given):
        parts = tuple(takewhile(lambda part: not glob.has_magic(part), parts))
    return str(Path(*parts))
