"""Where a batch writes: its results, its state and its lock, by the name that was given."""

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

__all__ = ["Place", "place_of"]

SUFFIXES = {form: "txt" if form == "text" else form for form in FORMATS}


@dataclass(frozen=True)
class Place:
    """Files of one output.

    results.jsonl is the truth; state.sqlite follows from it, and so do the files in `folder`, of
    the kind `form`, where there is one.
    """

    results: Path
    folder: Path | None = None
    form: str = "jsonl"

    @property
    def base(self) -> Path:
        """The folder that all lies in."""
        return self.results.parent

    @property
    def state(self) -> Path:
        """The state of the batch."""
        return self.results.with_suffix(".sqlite")

    @property
    def lock(self) -> Path:
        """What the run that writes has locked."""
        return self.results.with_suffix(".lock")

    @property
    def suffix(self) -> str:
        """What the names of the files in the folder end in."""
        return SUFFIXES[self.form]

    def file(self, name: str) -> Path:
        """The file of a name in the folder."""
        return self.base / f"{name}.{self.suffix}"

    def clear(self) -> None:
        """Begin anew: what stands there is taken for nothing. The caller holds the lock."""
        try:
            self.results.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{self.results}: {error.strerror}") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Have it alone, as long as the process lives; UsageError names the run that has it."""
        if self.folder:
            make_folder(self.folder)
        lock = FileLock(self.lock)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"{self.results}: is being written by {holder(self.state)}",
                hint="wait for it, or name another output",
                kind="Busy",
            ) from None
        except OSError as error:
            raise OutputError(f"{self.results}: cannot be locked: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()


def place_of(output: Path, given: str, form: str | None, inputs: Sequence[str] = ()) -> Place:
    """The place that `-o` names: FILE.jsonl, or a folder, which is there or ends in a slash.

    Raises UsageError for anything else, and for a file that is one of the `inputs`.
    """
    if not given:
        raise UsageError("-o is empty", hint="name FILE.jsonl, or a folder with a slash behind it")
    is_folder = given.endswith(("/", os.sep)) or os.path.isdir(output)
    if form is not None and form not in FORMATS:
        raise UsageError(f"unknown format {form!r}", hint=f"one of {', '.join(FORMATS)}")
    if is_folder:
        if os.path.lexists(output) and not os.path.isdir(output):
            raise UsageError(f"-o {given}: is not a folder", hint="name a new one, or a file")
        return _checked(Place(output / "results.jsonl", output, form or "text"))
    if output.suffix.lower() != ".jsonl":
        raise UsageError(
            f"-o {given}: results are JSON lines, or a file for each video",
            hint="name a file ending in .jsonl, or a folder with a slash behind it",
        )
    if form not in (None, "jsonl"):
        raise UsageError(
            f"-o {given} is of JSON lines", hint=f"for {form}, name a folder with a slash behind it"
        )
    check_writable(output, overwrite=True, inputs=inputs, read_back=True)
    # the lock lies beside the file itself, by whatever name it is reached
    return _checked(Place(target(output)))


def _checked(place: Place) -> Place:
    """The place, whose files lie in its folder or are not there yet."""
    for path in (place.results, place.state, place.lock):
        check_own(path)
    check_name(Path(f"{place.state}-journal"))  # the longest of them
    return place
