"""A log file of a command's events, one line each, beside what the terminal shows."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import typer

from malmm_cli.errors import OUTPUT_EXISTS, MalmmError, UsageError
from malmm_cli.events import Events, Forwarding
from malmm_cli.files.atomic import writing
from malmm_cli.files.escapes import on_one_line
from malmm_cli.files.special import check_own
from malmm_cli.formats import check_writable
from malmm_cli.processes import interrupts
from malmm_cli.text.words import counted
from malmm_cli.types import Result

__all__ = ["logged"]

_LINE = re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]{12}Z (info|warning|error) ")


@contextmanager
def logged(events: Events, path: Path | None) -> Iterator[Events]:
    """Events that are also appended to a file, if there is one, and how the command ends.

    Raises UsageError for what is not a log of malmm, OutputError where it cannot be written.
    """
    if path is None:
        yield events
        return
    check_own(path)
    check_writable(path, overwrite=True)
    _check_log(path)
    with writing(path):
        file = path.open("a", encoding="utf-8", errors="backslashreplace")
    with file:
        log = _Log(events, file, path)
        log.write("info", "started")
        code = 1
        try:
            yield log
            code = 0
        except typer.Exit as ended:
            code = ended.exit_code
            raise
        except KeyboardInterrupt:
            code = 128 + (interrupts.came() or signal.SIGINT)
            log.write("error", "interrupted")
            raise
        except MalmmError as error:
            code = error.exit_code
            log.write("error", error.message)
            raise
        except Exception as error:
            log.write("error", f"{type(error).__name__}: {error}")
            raise
        finally:
            log.write("error" if code else "info", f"ended, exit code {code}")


def _check_log(path: Path) -> None:
    """Raise UsageError where a file stands that is not a log: a line in it would damage it."""
    with writing(path):
        if not path.exists():
            return
        with path.open("rb") as file:
            begin = file.read(64)
    if begin and not _LINE.match(begin):
        raise UsageError(
            f"{path}: exists and is not a log written by malmm",
            hint="choose another file with --log",
            kind=OUTPUT_EXISTS,
        )


class _Log(Forwarding):
    """Appends a line for each event, with its time in RFC 3339 (UTC) and its level."""

    def __init__(self, events: Events, file: IO[str], path: Path) -> None:
        super().__init__(events)
        self._file, self._path = file, path

    def write(self, level: str, line: str) -> None:
        """Append a line, which is in the file at return."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with writing(self._path):
            self._file.write(f"{time} {level} {on_one_line(line)}\n")
            self._file.flush()

    def note(self, line: str) -> None:
        """Log a line."""
        self.write("info", line)
        self.to.note(line)

    def warn(self, line: str) -> None:
        """Log a warning."""
        self.write("warning", line)
        self.to.warn(line)

    def stage(self, name: str, unit: str) -> AbstractContextManager[object]:
        """Log that a stage begins."""
        self.write("info", f"stage: {name}")
        return self.to.stage(name, unit)

    def progress(self, name: str, done: int, total: int, unit: str) -> None:
        """Log each step, but not those of downloads, which come many times a second."""
        if unit != "bytes":
            self.write("info", f"{done} of {counted(total, unit.removesuffix('s'))}")
        self.to.progress(name, done, total, unit)

    def started(self, video: str) -> None:
        """Log that a video is being worked on."""
        self.write("info", f"started: {video}")
        self.to.started(video)

    def finished(self, result: Result) -> None:
        """Log a result."""
        question = f" {result.question!r}" if result.question else ""
        self.write("info", f"done: {result.video}{question}")
        for warning in result.warnings:
            self.write("warning", f"{result.video}: {warning}")
        self.to.finished(result)

    def failed(self, error: MalmmError) -> None:
        """Log a failure with its kind."""
        self.write("error", f"{error.kind}: {error.message}")
        self.to.failed(error)

    def interrupted(self, line: str) -> None:
        """Log what Ctrl-C leaves."""
        self.write("error", line)
        self.to.interrupted(line)
