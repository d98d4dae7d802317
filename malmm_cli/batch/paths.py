"""The paths that a batch writes to: results, state and lock, by the name of the output."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from malmm_cli.batch.state import holder
from malmm_cli.errors import OutputError, UsageError
from malmm_cli.files.special import check_own
from malmm_cli.formats import (
    FORMATS,
    check_name,
    check_writable,
    make_folder,
    target,
)
from malmm_cli.text.words import known_names

__all__ = ["OutputPaths", "checked_paths", "output_paths"]

HELD = {".jsonl": "JSON Lines", ".csv": "CSV", ".tsv": "TSV"}
SUFFIXES = {form: "txt" if form == "text" else form for form in FORMATS}


@dataclass(frozen=True)
class OutputPaths:
    """The files of one output.

    results.jsonl is the truth; state.sqlite follows from it, and so do the files in `folder`, of
    the kind `form`, or the `table`, where there is one. Files that are `beside` the videos are in
    a folder of theirs, not of malmm's.
    """

    results: Path
    folder: Path | None = None
    form: str = "jsonl"
    table: Path | None = None
    beside: bool = False

    @property
    def base(self) -> Path:
        """The folder of all of them."""
        return self.results.parent

    @property
    def state(self) -> Path:
        """The state of the batch."""
        return self.results.with_suffix(".sqlite")

    @property
    def lock(self) -> Path:
        """The lock of the run that writes."""
        return self.results.with_suffix(".lock")

    @property
    def suffix(self) -> str:
        """What the names of the files in the folder end in."""
        return SUFFIXES[self.form]

    def file(self, name: str) -> Path:
        """The file of a name in the folder."""
        return self.base / f"{name}.{self.suffix}"

    def clear(self) -> None:
        """Remove the results of earlier runs. The caller holds the lock."""
        try:
            self.results.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{self.results}: {error.strerror}") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the output while the process lives; UsageError names the run that has it locked."""
        if self.folder:
            make_folder(self.folder)
        lock = FileLock(self.lock)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"{self.results}: is being written by {holder(self.state)}",
                hint="wait for it, or choose another output",
                kind="Busy",
            ) from None
        except OSError as error:
            message = f"{self.results}: cannot be locked: {error.strerror}"
            raise OutputError(message, hint="choose another output") from error
        try:
            yield
        finally:
            lock.release()


def output_paths(given: str, form: str | None = None, inputs: Sequence[str] = ()) -> OutputPaths:
    """The paths of an output: a file, or a folder, which exists or whose name ends in a slash.

    The file is FILE.jsonl, or FILE.csv or FILE.tsv, which has its FILE.jsonl beside it.

    Raises UsageError for anything else, and for a file that is one of the `inputs`.
    """
    if not given:
        raise UsageError("-o is empty", hint="give FILE.jsonl, or a folder name ending in /")
    output = Path(given)
    is_folder = given.endswith(("/", os.sep)) or os.path.isdir(output)
    if form is not None and form not in FORMATS:
        raise UsageError(f"unknown format {form!r}", hint=known_names(form, FORMATS))
    if is_folder:
        if os.path.lexists(output) and not os.path.isdir(output):
            raise UsageError(f"-o {given}: is not a folder", hint="choose a new folder, or a file")
        return checked_paths(OutputPaths(output / "results.jsonl", output, form or "text"))
    suffix = output.suffix.lower()
    if suffix not in HELD:
        raise UsageError(
            f"-o {given}: must be a .jsonl, .csv or .tsv file, or a folder",
            hint="give a file name ending in .jsonl, .csv or .tsv, or a folder name ending in /",
        )
    if form not in (None, suffix[1:]):
        raise UsageError(
            f"-o {given} holds {HELD[suffix]}, not {form}",
            hint=f"for {form}, give a folder name ending in /",
        )
    table = None
    if suffix != ".jsonl":
        check_writable(output, overwrite=True, inputs=inputs, read_back=True)
        table, output = target(output), target(output).with_suffix(".jsonl")
    check_writable(output, overwrite=True, inputs=inputs, read_back=True)
    # the lock lies beside the file itself, by whatever name it is reached
    return checked_paths(OutputPaths(target(output), table=table))


def checked_paths(paths: OutputPaths) -> OutputPaths:
    """The paths, if their files are ordinary ones or do not exist yet; UsageError otherwise."""
    for path in (paths.results, paths.state, paths.lock):
        check_own(path)
    check_name(Path(f"{paths.state}-journal"))  # the longest of them
    return paths
