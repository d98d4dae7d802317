"""The state of a batch in SQLite, beside the output and open to any tool.

It is made from the output and can be made again from it at any time, but for `replaced`, `run`
and `file`.

    item      id, video, status, identity, settings, tries, seconds, kind, message, at
              status is waiting, done or failed; kind and message say why it failed; seconds is what
              it took, at when it ended
    run       id, started, ended, host, pid, workers, items, done, failed, seconds, memory
              one line for each run; ended is NULL for one that goes on, or was killed; seconds is
              what its items took, memory the most bytes that a worker held
    replaced  at, id, line
              lines that were taken out of the output because their items are done anew
    file      name, digest
              files in the folder that are ours, with a hash of their content; two for one that
              was being written when the run was killed
"""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from malmm_cli.batch.lines import AGAIN
from malmm_cli.errors import OutputError, UsageError
from malmm_cli.files.atomic import check_same
from malmm_cli.files.jsonl import encoded

__all__ = ["Entry", "Pace", "State", "claimed", "holder", "pace"]

OURS = 0x6D616C6D  # "malm", in the header of the file
TABLES = """
CREATE TABLE IF NOT EXISTS item (
    id TEXT PRIMARY KEY, video TEXT, status TEXT, identity TEXT, settings TEXT, tries INTEGER,
    seconds REAL, kind TEXT, message TEXT, at TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS run (
    id INTEGER PRIMARY KEY, started TEXT, ended TEXT, host TEXT, pid INTEGER, workers INTEGER,
    items INTEGER, done INTEGER DEFAULT 0, failed INTEGER DEFAULT 0, seconds REAL DEFAULT 0,
    memory INTEGER DEFAULT 0);
CREATE TABLE IF NOT EXISTS replaced (at TEXT, id TEXT, line TEXT);
CREATE TABLE IF NOT EXISTS file (name TEXT, digest TEXT, PRIMARY KEY (name, digest)) WITHOUT ROWID;
"""
ITEM = """
INSERT INTO item VALUES (:id, :video, :status, :identity, :settings, :tries, :seconds, :kind,
    :message, :at)
ON CONFLICT (id) DO UPDATE SET video = :video, status = :status, identity = :identity,
    settings = :settings, tries = coalesce(:tries, tries), seconds = coalesce(:seconds, seconds),
    kind = coalesce(:kind, CASE :status WHEN 'failed' THEN kind END),
    message = coalesce(:message, CASE :status WHEN 'failed' THEN message END),
    at = coalesce(:at, at)
"""


@dataclass(frozen=True)
class Entry:
    """A line of the table `item`; None where nothing new is known."""

    id: str
    video: str
    status: str
    settings: str
    identity: str | None = None
    tries: int | None = None
    seconds: float | None = None
    kind: str | None = None
    message: str | None = None
    at: str | None = None


@dataclass(frozen=True)
class Pace:
    """What an earlier run was like: `seconds` of a worker for an item, and the `memory` it held."""

    seconds: float
    memory: int


class State:
    """The state, open for one run; to be used from one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _explained(path):
            self._base = _open(path)
        self._known = os.stat(path)
        self.run = 0

    def check(self) -> None:
        """Raise OutputError where somebody has removed or replaced the file."""
        check_same(self.path, self._known)

    def begin(self, workers: int) -> None:
        """Note that a run began, and who it is."""
        values = (now(), socket.gethostname(), os.getpid(), workers)
        with _explained(self.path), self._base:
            row = self._base.execute(
                "INSERT INTO run (started, host, pid, workers) VALUES (?, ?, ?, ?)", values
            )
        self.run = row.lastrowid or 0

    def take(self, entries: Iterable[Entry]) -> None:
        """Have the items of this run and of the output, and no others."""
        rows = [vars(entry) for entry in entries]
        with _explained(self.path), self._base:
            self._base.execute("CREATE TEMP TABLE here (id TEXT PRIMARY KEY) WITHOUT ROWID")
            self._base.executemany("INSERT INTO here VALUES (:id)", map(_text, rows))
            self._base.execute("DELETE FROM item WHERE id NOT IN (SELECT id FROM here)")
            self._base.executemany(ITEM, map(_text, rows))
            items = sum(row["status"] != "done" for row in rows)
            self._base.execute("UPDATE run SET items = ? WHERE id = ?", (items, self.run))

    def add(self, entries: Iterable[Entry], seconds: float, memory: int) -> None:
        """Note what became of items, all or none."""
        rows = [vars(entry) for entry in entries]
        done = sum(row["status"] == "done" for row in rows)
        self.check()
        with _explained(self.path), self._base:
            self._base.executemany(ITEM, map(_text, rows))
            self._base.execute(
                "UPDATE run SET done = done + ?, failed = failed + ?, seconds = seconds + ?,"
                " memory = max(memory, ?) WHERE id = ?",
                (done, len(rows) - done, seconds, memory, self.run),
            )

    def set_aside(self, lines: Iterable[tuple[str, str]]) -> None:
        """Keep lines, with the ids of their items, that leave the output; on the disk at return."""
        with _explained(self.path):
            self._base.execute("PRAGMA synchronous = FULL")
            with self._base:
                rows = ((now(), encoded(name).decode(), line) for name, line in lines)
                self._base.executemany("INSERT INTO replaced VALUES (?, ?, ?)", rows)
            self._base.execute("PRAGMA synchronous = NORMAL")

    def claim(self, files: Sequence[tuple[str, str]]) -> None:
        """Note names and digests of files that are about to be written."""
        with _explained(self.path), self._base:
            self._base.executemany("INSERT OR IGNORE INTO file VALUES (?, ?)", files)

    def settle(self, files: Sequence[tuple[str, str]]) -> None:
        """Forget other digests of these files: they are written."""
        with _explained(self.path), self._base:
            self._base.executemany("DELETE FROM file WHERE name = ? AND digest != ?", files)

    def end(self) -> None:
        """Note that the run ended."""
        with _explained(self.path), self._base:
            self._base.execute("UPDATE run SET ended = ? WHERE id = ?", (now(), self.run))

    def close(self) -> None:
        """Leave it to others."""
        self._base.close()


def holder(path: Path) -> str:
    """The run that is going on, in words."""
    rows = _read(path, "SELECT pid, host, started FROM run WHERE ended IS NULL ORDER BY id DESC")
    return f"process {rows[0][0]} on {rows[0][1]}, since {rows[0][2]}" if rows else "another run"


def pace(path: Path) -> Pace | None:
    """What the latest run that did something was like, if there is one."""
    rows = _read(
        path, "SELECT seconds / (done + failed), memory FROM run WHERE done > 0 ORDER BY id DESC"
    )
    return Pace(*rows[0]) if rows else None


def claimed(path: Path) -> set[tuple[str, str]]:
    """Names and digests of files that earlier runs wrote."""
    return set(_read(path, "SELECT name, digest FROM file", most=-1))


def now() -> str:
    """The time as the tables have it: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read(path: Path, question: str, most: int = 1) -> list[tuple[Any, ...]]:
    if not path.exists():
        return []
    try:
        # nobody writes where there is no log; opened otherwise, one would be left
        how = "mode=ro" if Path(f"{path}-wal").exists() else "mode=ro&immutable=1"
        base = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)
        try:
            return base.execute(f"{question} LIMIT {most}").fetchall()
        finally:
            base.close()
    except sqlite3.Error:
        return []


def _open(path: Path) -> sqlite3.Connection:
    """The database; a damaged one is put aside, since all that matters is in the output."""
    with suppress(OSError):  # raised below; SQLite would give it less than the umask does
        path.open("xb").close()
    base = sqlite3.connect(path, check_same_thread=False)
    try:
        (ours,) = base.execute("PRAGMA application_id").fetchone()
        (tables,) = base.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and ours != OURS:
            raise UsageError(
                f"{path}: is not a malmm batch state file",
                hint="choose another file or folder with -o",
            )
        base.execute("PRAGMA journal_mode = WAL")  # others can read while it is written
        base.execute("PRAGMA synchronous = NORMAL")
        base.execute(f"PRAGMA application_id = {OURS}")
        base.executescript(TABLES)
        (fault,) = base.execute("PRAGMA quick_check").fetchone()
        if fault == "ok":
            return base
    except sqlite3.OperationalError:
        base.close()
        raise
    except sqlite3.DatabaseError:
        pass
    except UsageError:
        base.close()
        raise
    base.close()
    for suffix in ("", "-wal", "-shm"):
        part = Path(f"{path}{suffix}")
        if part.exists():
            os.replace(part, f"{path}.damaged{suffix}")
    return _open(path)


def _text(row: dict[str, object]) -> dict[str, object]:
    """The row with bytes in names of files that are no text escaped."""
    return {
        name: encoded(value).decode() if isinstance(value, str) else value
        for name, value in row.items()
    }


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn errors of SQLite into OutputError."""
    try:
        yield
    except sqlite3.Error as error:
        raise OutputError(f"{path}: {error}", hint=_hint(str(error))) from error


def _hint(said: str) -> str:
    if "locked" in said:
        return "close the program that has it open, and rerun the command"
    if "readonly" in said or "unable to open" in said:
        return "the file and its folder must be writable"
    return AGAIN
