"""An output folder: files follow from the lines, and files malmm did not write stay."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from malmm_cli.batch.files import content
from malmm_cli.batch.lines import Line, item_of, write_whole
from malmm_cli.batch.paths import OutputPaths
from malmm_cli.batch.state import State
from malmm_cli.errors import OUTPUT_EXISTS, OutputError
from malmm_cli.files.jsonl import encoded

__all__ = ["Files", "in_the_way"]


def in_the_way(paths: OutputPaths, file: Path) -> OutputError:
    """The error of a video whose file would take the place of one that malmm did not write."""
    hint = "remove it, or use -o FOLDER/ or another --format"
    if not paths.beside:
        hint = "move it, and run the same command"
    message = f"{file}: exists, and was not written by malmm"
    return OutputError(message, hint=hint, kind=OUTPUT_EXISTS)


class Files:
    """Files by their names, and the lines that each is made of."""

    def __init__(self, paths: OutputPaths, kept: Mapping[str, Line]) -> None:
        self._paths = paths
        self._lines: defaultdict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
        self._absent: set[str] = set()
        self.left: list[Path] = []  # files that others made before we could
        for line in kept.values():
            self.note(line.name or "", line.id, line.start, line.stop)

    def note(self, name: str, item: str, start: int, stop: int) -> None:
        """A line of an item, in bytes, is what the file of that name is made of too."""
        self._lines[name][item] = (start, stop)

    def strangers(self, names: Iterable[str], claimed: set[tuple[str, str]]) -> list[Path]:
        """Files of these names which nobody can say are ours; `claimed` are those we wrote."""
        found = []
        for name in dict.fromkeys(names):
            path = self._paths.file(name)
            if not os.path.lexists(path):
                continue
            data = path.read_bytes() if path.is_file() and not path.is_symlink() else None
            if data is None or not (
                self._claim(path, data) in claimed or data == self._expected(name)
            ):
                found.append(path)
        return found

    def mend(self, state: State, leave: Iterable[Path]) -> None:
        """Rewrite files that differ from the lines, but not those in `leave`."""
        left = set(leave)
        names = [
            n for n in self._lines if self._paths.file(n) not in left and not self._is_current(n)
        ]
        self.write(state, names)

    def restore(self, state: State, names: Iterable[str]) -> None:
        """Write those of these names again that somebody has removed."""
        self.write(state, [n for n in names if not os.path.lexists(self._paths.file(n))])

    def keep_strangers(self, names: Iterable[str]) -> set[str]:
        """Those of the names that have no file now: one that appears is not ours, and is kept."""
        self._absent = {name for name in names if not os.path.lexists(self._paths.file(name))}
        return {*self._absent}

    def write(self, state: State, names: Iterable[str]) -> None:
        """Have the files of these names on the disk as the lines have them."""
        expected = {name: data for name in names if (data := self._expected(name)) is not None}
        files = [self._claim(self._paths.file(name), data) for name, data in expected.items()]
        state.claim(files)  # a run that is killed now leaves one of the two
        for name, data in expected.items():
            path = self._paths.file(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                write_whole(path, [data], replace=name not in self._absent)
                self._absent.discard(name)
            except OutputError as error:
                if error.kind != OUTPUT_EXISTS:
                    raise
                self.left.append(path)
        state.settle(files)

    def _is_current(self, name: str) -> bool:
        expected, path = self._expected(name), self._paths.file(name)
        return expected is None or (path.exists() and path.read_bytes() == expected)

    def _expected(self, name: str) -> bytes | None:
        """What has to be in a file; None where there is no result for it."""
        if name not in self._lines:
            return None
        with self._paths.results.open("rb") as file:
            items = []
            for start, stop in self._lines[name].values():
                file.seek(start)
                items.append(item_of(file.read(stop - start)))
        return content(items, self._paths.form)

    def _claim(self, path: Path, data: bytes) -> tuple[str, str]:
        """Name and digest as the state has them, in which names are text."""
        name = path.relative_to(self._paths.base).as_posix()
        return encoded(name).decode(), hashlib.sha256(data).hexdigest()
