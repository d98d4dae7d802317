"""What the output holds and how lines are added: durable, each item once, in a thread.

While one group of lines is on its way to the disk the next one gathers, so that a run of many small
items waits for the disk once for many of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from malmm_cli.batch import table
from malmm_cli.batch.files import Names
from malmm_cli.batch.folder import Files, in_the_way
from malmm_cli.batch.inputs import seen_from
from malmm_cli.batch.job import Job, Outcome, failed
from malmm_cli.batch.lines import AGAIN, Line, Lines, line_of, read_lines
from malmm_cli.batch.naming import name_files, names_in
from malmm_cli.batch.paths import OutputPaths
from malmm_cli.batch.plan import Planned
from malmm_cli.batch.state import Entry, State, claimed, now
from malmm_cli.errors import OUTPUT_EXISTS, MalmmError, OutputError, UsageError
from malmm_cli.events import SILENT, Events
from malmm_cli.files.atomic import remove_leftovers, writing
from malmm_cli.files.jsonl import encoded, open_lines, without
from malmm_cli.formats import Failure

__all__ = ["Ledger", "check_folder", "open_ledger"]

CHANGED = "is not what malmm wrote; it is left as it is"

Written = tuple[Job, Outcome]


@contextmanager
def open_ledger(
    paths: OutputPaths,
    lines: Lines,
    planned: Sequence[Planned],
    todo: Sequence[Planned],
    workers: int,
    *,
    overwrite: bool = False,
    events: Events = SILENT,
) -> Iterator[Ledger]:
    """Make room for the items `todo`, of all that are planned, and take what becomes of them.

    `lines` is what stands in the output. Those of items that are done anew leave it, and are kept
    in the state. Files of others are replaced only with `overwrite`; those that stand for what is
    done are left alone, with a warning. The caller holds the lock.
    """
    state = State(paths.state)
    had_table = bool(paths.table and os.path.lexists(paths.table))
    try:
        state.begin(workers)
        left = [] if overwrite else check_folder(paths, lines, planned, todo)
        done = {paths.file(line.name or "") for line in lines.kept.values() if not line.failed}
        for path in left:
            if path in done:
                events.warn(f"{path}: {CHANGED}")
        names = names_in(paths, planned, lines.kept)
        kept = _make_room(paths, state, lines, todo, left).kept
        state.take(_entries(planned, kept))
        files = Files(paths, kept) if paths.folder else None
        if files:
            for line in name_files(paths, names, todo):
                events.note(line)
            files.mend(state, left)
        _remove_leftovers([paths.results, *(paths.file(name) for name in names)])
        try:
            with open_lines(paths.results, append=True) as write:
                ledger = Ledger(paths, state, names, write, files)
                with closing(ledger), closing(ledger):  # Ctrl-C may break off one of the two
                    yield ledger
            for path in dict.fromkeys(files.left if files else ()):
                events.warn(f"{path}: {CHANGED}")
        finally:
            if paths.table:
                table.write(paths.table, paths.results, state, replace=had_table)
    finally:
        with suppress(OutputError):  # of a disk on which more than this could not be written
            state.end()
        state.close()


def check_folder(
    paths: OutputPaths, lines: Lines, planned: Sequence[Planned], todo: Sequence[Planned]
) -> list[Path]:
    """The files that malmm did not write at the paths of earlier items.

    Raises UsageError for those at the paths of results to come, but for those beside videos, and
    for lines that were written with files where there are none now, or the other way round.
    """
    if any((line.name is not None) != (paths.folder is not None) for line in lines.kept.values()):
        other = "as FOLDER/, with files" if paths.folder is None else "as a single file"
        raise UsageError(
            f"{paths.results}: was written {other}",
            hint="use the same -o as before, choose another output, or start over with --overwrite",
            kind=OUTPUT_EXISTS,
        )
    if paths.table and paths.table.exists():
        _check_table(paths.table, paths)
    if paths.folder is None:
        return []
    files, ours = Files(paths, lines.kept), claimed(paths.state)
    names = names_in(paths, planned, lines.kept)
    new = () if paths.beside else todo  # there, each that is in the way is a failure of its own
    if in_the_way := files.strangers(
        (names.of(_key(paths, item.task.video), item.below) for item in new), ours
    ):
        raise UsageError(
            f"{in_the_way[0]}: exists, and was not written by malmm",
            hint="choose another folder, or use --overwrite",
            kind=OUTPUT_EXISTS,
        )
    return files.strangers((line.name or "" for line in lines.kept.values()), ours)


class Ledger:
    """Takes what became of jobs, and has it on the disk as soon as that can be."""

    def __init__(
        self,
        paths: OutputPaths,
        state: State,
        names: Names,
        write: Callable[[str], None],
        files: Files | None,
    ) -> None:
        self._paths, self._state, self._names, self._write = paths, state, names, write
        self._files = files
        self._absent = files.keep_strangers(names) if files else set()
        self._size = paths.results.stat().st_size if paths.results.exists() else 0
        self._waiting: SimpleQueue[Written | None] = SimpleQueue()
        self._fault: Exception | None = None
        self._touched: set[str] = set()  # names of files
        self._thread = Thread(target=self._work, daemon=True)
        self._thread.start()

    def add(self, job: Job, outcome: Outcome) -> Outcome:
        """Take what became of a job, and say so: a failure where its file's place is taken.

        Raises OutputError if an earlier one could not be written.
        """
        if self._fault:
            raise self._fault
        if not outcome.error and self._files:
            name = self._names.of(_key(self._paths, job.video))
            file = self._paths.file(name)
            if name in self._absent and os.path.lexists(file):
                outcome = failed(job, in_the_way(self._paths, file), outcome.seconds)
            else:
                self._absent.discard(name)
        self._waiting.put((job, outcome))
        return outcome

    def close(self) -> None:
        """Wait until all is written; raises OutputError if that could not be."""
        self._waiting.put(None)
        self._thread.join()
        if self._fault:
            raise self._fault
        self._state.check()
        if self._files:
            with writing(self._paths.results, AGAIN):
                self._files.restore(self._state, self._touched)

    def _work(self) -> None:
        going = True
        while going:
            group = [self._waiting.get()]
            try:
                while True:
                    group.append(self._waiting.get_nowait())
            except Empty:
                pass
            going = None not in group
            if not self._fault:
                try:
                    with writing(self._paths.results, AGAIN):
                        self._write_group([entry for entry in group if entry])
                except MalmmError as error:
                    error.hint = error.hint or AGAIN
                    self._fault = error
                except Exception as error:
                    self._fault = error

    def _write_group(self, group: list[Written]) -> None:
        if not group:
            return
        texts: list[str] = []
        touched: set[str] = set()
        for job, outcome in group:
            name = self._names.of(_key(self._paths, job.video)) if self._files else None
            for task, digest, item in zip(job.tasks, job.digests, outcome.items, strict=True):
                text = line_of(item, task.id, outcome.identity, digest, name)
                start, self._size = self._size, self._size + len(encoded(text))
                if self._files and name:
                    self._files.note(name, task.id, start, self._size)
                    touched.add(name)
                texts.append(text)
        self._write("".join(texts))
        if self._files:
            self._files.write(self._state, touched)
            self._touched |= touched
        for job, outcome in group:
            self._state.add(_outcomes(job, outcome), outcome.seconds, outcome.memory)


def _check_table(path: Path, paths: OutputPaths) -> None:
    if not table.is_ours(path, paths.results, claimed(paths.state)):
        raise UsageError(
            f"{path}: exists, and was not written by malmm",
            hint="choose another file, or use --overwrite",
            kind=OUTPUT_EXISTS,
        )


def _remove_leftovers(ours: Sequence[Path]) -> None:
    """Remove what killed runs left beside these files."""
    folders: dict[Path, list[str]] = {}
    for path in ours:
        folders.setdefault(path.parent, []).append(path.name)
    for folder, here in folders.items():
        remove_leftovers(folder, here)


def _key(paths: OutputPaths, video: str) -> str:
    return seen_from(paths.base, video)


def _make_room(
    paths: OutputPaths,
    state: State,
    lines: Lines,
    todo: Sequence[Planned],
    left: Sequence[Path],
) -> Lines:
    """Remove damaged lines and those of items that are redone from the output; what is left in it.

    Their files go too, but for those that are `left` alone.

    A file that has another name too, by a hard link, becomes one of its own: only that will grow.
    """
    again = [lines.kept[item.task.id] for item in todo if item.task.id in lines.kept]
    dropped = [*again, *lines.replaced]
    shared = paths.results.exists() and paths.results.stat().st_nlink > 1
    if not dropped and not lines.damaged and not shared:
        return lines
    if paths.folder:
        for path in {paths.file(line.name or "") for line in again} - {*left}:
            path.unlink(missing_ok=True)
    with paths.results.open("rb") as file:
        aside = []
        for line in dropped:
            if not line.failed:
                file.seek(line.start)
                raw = file.read(line.stop - line.start)
                aside.append((line.id, raw.decode("utf-8", "backslashreplace")))
    state.set_aside(aside)
    useless = [*((line.start, line.stop) for line in dropped), *lines.damaged]
    without(paths.results, useless, AGAIN)
    return read_lines(paths.results)


def _entries(planned: Sequence[Planned], kept: Mapping[str, Line]) -> Iterator[Entry]:
    """All items of this run, and those of the output that are not in it."""
    videos = {item.task.id: item for item in planned}
    for name, item in videos.items():
        line = kept.get(name)
        status = "waiting" if line is None else "failed" if line.failed else "done"
        digest, identity = (line.settings, line.identity) if line else (item.digest, None)
        yield Entry(name, item.task.video, status, digest, identity)
    for name, line in kept.items():
        if name not in videos:
            status = "failed" if line.failed else "done"
            yield Entry(name, line.video, status, line.settings, line.identity)


def _outcomes(job: Job, outcome: Outcome) -> Iterator[Entry]:
    for task, digest, item in zip(job.tasks, job.digests, outcome.items, strict=True):
        error = item.error if isinstance(item, Failure) else None
        yield Entry(
            id=task.id,
            video=task.video,
            status="failed" if error else "done",
            settings=digest,
            identity=outcome.identity,
            tries=job.tries,
            seconds=outcome.seconds,
            kind=error.kind if error else None,
            message=error.message if error else None,
            at=now(),
        )
