"""What stands in the output, and how more gets there: durable, each item once, in its own thread.

While one group of lines is on its way to the disk the next one gathers, so that a run of many small
items waits for the disk once for many of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from malmm_cli.batch.files import Names, content
from malmm_cli.batch.inputs import seen_from
from malmm_cli.batch.job import Job, Outcome
from malmm_cli.batch.lines import (
    AGAIN,
    Line,
    Lines,
    item_of,
    line_of,
    read_lines,
    without,
    write_whole,
)
from malmm_cli.batch.place import Place
from malmm_cli.batch.plan import Planned
from malmm_cli.batch.state import Entry, State, now
from malmm_cli.errors import MalmmError, OutputError, UsageError
from malmm_cli.output import Failure, encoded, open_lines

__all__ = ["Ledger", "check_folder", "open_ledger"]

Written = tuple[Job, Outcome]


@contextmanager
def open_ledger(
    place: Place, lines: Lines, planned: Sequence[Planned], todo: Sequence[Planned], workers: int
) -> Iterator[Ledger]:
    """Make room for the items `todo`, of all that are planned, and take what becomes of them.

    `lines` is what stands in the output. Those of items that are done anew leave it, and are kept
    in the state. The caller holds the lock.
    """
    state = State(place.state)
    try:
        state.begin(workers)
        names = _names(place, planned, lines.kept)
        if place.folder:
            _check_strangers(place, names, todo, lines.kept)  # once more, now that it is ours
        _make_room(place, state, lines, todo)
        kept = read_lines(place.results).kept
        state.take(_entries(planned, kept))
        with ExitStack() as stack:
            write = stack.enter_context(open_lines(place.results, append=True))
            ledger = Ledger(place, state, names, write, kept)
            stack.callback(ledger.close)
            yield ledger
    finally:
        with suppress(OutputError):  # of a disk on which more than this could not be written
            state.end()
        state.close()


def check_folder(place: Place, lines: Lines, planned: Sequence[Planned]) -> None:
    """Raise UsageError for files of others in the folder, before anything is made."""
    if place.folder:
        _check_strangers(place, _names(place, planned, lines.kept), planned, lines.kept)


class Ledger:
    """Takes what became of jobs, and has it on the disk as soon as that can be."""

    def __init__(
        self,
        place: Place,
        state: State,
        names: Names,
        write: Callable[[str], None],
        kept: Mapping[str, Line],
    ) -> None:
        self.collisions = names.collisions
        self._place, self._state, self._names, self._write = place, state, names, write
        self._lines: defaultdict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
        self._size = place.results.stat().st_size if place.results.exists() else 0
        for line in kept.values():
            self._lines[line.name or ""][line.id] = (line.start, line.stop)
        if place.folder:
            for name in self._lines:
                if not self._file(name).exists():
                    self._write_file(name)
        self._waiting: SimpleQueue[Written | None] = SimpleQueue()
        self._fault: Exception | None = None
        self._thread = Thread(target=self._work)
        self._thread.start()

    def add(self, job: Job, outcome: Outcome) -> None:
        """Take what became of a job; raises OutputError if an earlier one could not be written."""
        if self._fault:
            raise self._fault
        self._waiting.put((job, outcome))

    def close(self) -> None:
        """Wait until all is written; raises OutputError if that could not be."""
        self._waiting.put(None)
        self._thread.join()
        if self._fault:
            raise self._fault

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
                    self._write_group([entry for entry in group if entry])
                except MalmmError as error:
                    error.hint = error.hint or AGAIN
                    self._fault = error
                except Exception as error:
                    self._fault = error

    def _write_group(self, group: list[Written]) -> None:
        if not group:
            return
        texts, touched = [], set()
        for job, outcome in group:
            name = self._names.of(_key(self._place, job.video)) if self._place.folder else None
            for task, digest, item in zip(job.tasks, job.digests, outcome.items, strict=True):
                text = line_of(item, task.id, outcome.identity, digest, name)
                stop = self._size + len(encoded(text))
                self._lines[name or ""][task.id] = (self._size, stop)
                self._size = stop
                texts.append(text)
                touched.add(name)
        self._write("".join(texts))
        if self._place.folder:
            for name in touched:
                self._write_file(name or "")
        for job, outcome in group:
            self._state.add(_outcomes(job, outcome), outcome.seconds, outcome.memory)

    def _file(self, name: str) -> Path:
        return self._place.base / f"{name}.{self._place.suffix}"

    def _write_file(self, name: str) -> None:
        with self._place.results.open("rb") as file:
            items = []
            for start, stop in self._lines[name].values():
                file.seek(start)
                items.append(item_of(file.read(stop - start)))
        data = content(items, self._place.form)
        if data is not None:
            write_whole(self._file(name), [data])


def _names(place: Place, planned: Sequence[Planned], kept: Mapping[str, Line]) -> Names:
    """The names that videos have in the output already, and those that are taken."""
    known = {}
    for item in planned if place.folder else ():
        line = kept.get(item.task.id)
        if line and line.name:
            known[_key(place, item.task.video)] = line.name
    return Names(known, [line.name for line in kept.values() if line.name])


def _key(place: Place, video: str) -> str:
    return seen_from(place.base, video)


def _check_strangers(
    place: Place, names: Names, todo: Sequence[Planned], kept: Mapping[str, Line]
) -> None:
    """Raise UsageError for files in the folder that no line tells of."""
    ours = {line.name for line in kept.values()}
    for item in todo:
        name = names.of(_key(place, item.task.video))
        path = place.base / f"{name}.{place.suffix}"
        if name not in ours and path.exists():
            raise UsageError(
                f"{path}: exists, and is of no earlier run",
                hint="name another folder; --overwrite replaces it",
                kind="OutputExists",
            )


def _make_room(place: Place, state: State, lines: Lines, todo: Sequence[Planned]) -> None:
    """Take the lines of items that are done anew out of the output, and damaged ones."""
    again = [lines.kept[item.task.id] for item in todo if item.task.id in lines.kept]
    dropped = [*again, *lines.replaced]
    if not dropped and not lines.damaged:
        return
    if place.folder:
        for line in again:
            (place.base / f"{line.name}.{place.suffix}").unlink(missing_ok=True)
    with place.results.open("rb") as file:
        aside = []
        for line in dropped:
            if not line.failed:
                file.seek(line.start)
                raw = file.read(line.stop - line.start)
                aside.append((line.id, raw.decode("utf-8", "backslashreplace")))
    state.set_aside(aside)
    without(place.results, [*((line.start, line.stop) for line in dropped), *lines.damaged])


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
