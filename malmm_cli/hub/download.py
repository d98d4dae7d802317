"""A repository of the Hugging Face Hub → a folder in the Hub client's own cache.

Tokens, addresses, locks and the layout of the cache are the client's; list and bytes are fetched
here. The client's own download discards partial downloads (in 2.4 too) and
compares no hash.

    blobs/<hash>.incomplete  → whole, hash compared →  blobs/<hash>  ←  snapshots/<commit>/<file>
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from malmm_cli.errors import CapacityError, MalmmError, ModelError
from malmm_cli.events import SILENT, Events
from malmm_cli.files.atomic import new_file
from malmm_cli.hub.advice import pulling
from malmm_cli.hub.errors import WrongAnswerError, endpoint, explained, http_error, is_refused_part
from malmm_cli.hub.listing import Listing, list_of
from malmm_cli.hub.patience import Patience
from malmm_cli.hub.snapshot import File, check_listed, file_of, is_complete, size_text, wanted
from malmm_cli.hub.transfer import receive

__all__ = [
    *("Download", "arrived", "cache_folder", "cached", "is_offline", "lock_of", "nearest_folder"),
    "storage_of",
]

# Cache ref that records the commit of `main` at the first download.
_RECORD = "malmm"

_Result = TypeVar("_Result")


def cache_folder() -> Path:
    """Return the cache folder, which may not exist yet. HF_HUB_CACHE or HF_HOME change it."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def nearest_folder() -> Path:
    """Return the cache folder or, if it does not exist, its nearest existing parent."""
    folder = cache_folder()
    return next(path for path in (folder, *folder.parents) if path.exists())


def is_offline(*, asked: bool) -> bool:
    """Whether the network must not be used: that was `asked`, or HF_HUB_OFFLINE is set."""
    from huggingface_hub import constants

    return asked or bool(constants.HF_HUB_OFFLINE)


def arrived(repository: str, revision: str | None) -> int:
    """Return the downloaded bytes of an incomplete repository."""
    storage = storage_of(repository)
    commit = revision or _commit(storage, _RECORD) or _commit(storage, "main")
    files = [*(storage / "blobs").glob("*.incomplete")]
    if commit:
        files += (storage / "snapshots" / commit).rglob("*")
    return sum(map(_size, files))


def cached(repository: str, revision: str | None) -> Path | None:
    """Return the repository's folder if fully downloaded; its name is the commit.

    Without a revision, the recorded one, or else what another program has taken `main` for.
    """
    storage = storage_of(repository)
    commits = [revision] if revision else [_commit(storage, ref) for ref in (_RECORD, "main")]
    folders = [storage / "snapshots" / commit for commit in commits if commit]
    return next(filter(is_complete, folders), None)


@dataclass(frozen=True)
class Download:
    """A repository to download, at a commit or, without one, at the first commit seen of `main`.

    `events` gets notes, and the progress of each file in bytes: once for each file to download,
    then as they arrive. `check_memory` is given the number of parameters before the first byte,
    where it is known, and may raise.
    """

    name: str
    repository: str
    revision: str | None
    licence: str | None
    parameters: int | None
    check_memory: Callable[[int], Any]
    events: Events = SILENT

    def run(self, *, offline: bool = False, verify: bool = False) -> Path:
        """Return the folder; downloads missing and, on request, damaged files.

        Without `verify`, what is here is taken as it is, and no network is touched.
        """
        offline = is_offline(asked=offline)
        folder = cached(self.repository, self.revision)
        if folder and (offline or not verify):
            return folder
        if offline:
            both = self.name if self.name == self.repository else f"{self.name}: {self.repository}"
            raise ModelError(
                f"{both} is not fully downloaded, and offline mode is on",
                hint=pulling(self.name, chosen=verify),  # who verifies has named it
                kind="NotCached",
            )
        try:
            with self._lock():
                folder = cached(self.repository, self.revision)
                return folder if folder and not verify else self._fetch(verify=verify)
        except MalmmError:
            raise
        except Exception as error:  # exception types differ between versions of the client
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> MalmmError:
        record = None if self.revision else storage_of(self.repository) / "refs" / _RECORD
        return explained(error, self.repository, record=record)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Lock the repository; other processes wait, then find the files downloaded."""
        lock = _client().WeakFileLock
        path = lock_of(self.repository)
        with ExitStack() as stack:
            try:
                stack.enter_context(lock(path, timeout=0.1))
            except TimeoutError:
                self.events.note(f"{self.name}: waiting for another process to finish downloading")
                stack.enter_context(lock(path))
            yield

    def _fetch(self, *, verify: bool) -> Path:
        storage = storage_of(self.repository)
        revision = self.revision or _commit(storage, _RECORD) or "main"
        listing = self._patiently(partial(list_of, self.repository, revision))
        commit = listing.commit
        folder = storage / "snapshots" / commit
        files = wanted(listing.files, self.repository, partial(self._ask, commit))
        missing = [file for file in files if not file.is_at(folder / file.name, verify=verify)]
        blobs = {file: storage / "blobs" / file.hash for file in missing}
        there = {file: file.is_at(blob, verify=verify) for file, blob in blobs.items()}
        if missing:
            here = {f: f.size if there[f] else _size(_part(blobs[f])) for f in missing}
            self._check(sum(f.size - here[f] for f in missing), listing)
            self._announce(here, listing)
        if not self.revision:
            _record(storage, commit)
        for file, blob in blobs.items():
            if file.name.endswith(".safetensors"):  # they come last, and are large
                check_listed(folder, [file.name for file in files], self.repository)
            if not there[file]:
                self._bring(file, blob, commit)
            _link(folder / file.name, blob)
            self._report(file, file.size)
        if not is_complete(folder):
            raise ModelError(
                f"{self.repository} is incomplete on the Hub", hint="use another model"
            )
        return folder

    def _ask(self, commit: str, name: str) -> File:
        """Ask for a file that is listed without size or hash."""
        from huggingface_hub import HfApi, hf_hub_url

        url = hf_hub_url(self.repository, name, revision=commit)
        metadata = self._patiently(partial(HfApi().get_hf_file_metadata, url=url))
        file = file_of(name, metadata.size, metadata.etag)
        if file is None:
            raise ModelError(
                f"{self.repository}: {name} has no size or hash on the Hub, so it cannot be "
                "verified",
                hint=f"use another mirror of the Hub{endpoint()}, or a local model folder",
                kind="HubError",
            )
        return file

    def _check(self, size: int, listing: Listing) -> None:
        """Raise CapacityError before the download if disk or memory is too small."""
        parameters = self.parameters or listing.parameters
        if size and parameters:
            self.check_memory(parameters)
        cache = cache_folder()
        free = shutil.disk_usage(nearest_folder()).free
        if free < size:
            raise CapacityError(
                f"{self.name}: the download takes {size_text(size)}, but {cache} has only "
                f"{size_text(free)} free",
                hint="free up disk space, or set HF_HOME to a folder on a larger disk",
            )

    def _announce(self, here: dict[File, int], listing: Listing) -> None:
        """Report size, origin and licence of the download."""
        whole = sum(file.size for file in here)
        rest = whole - sum(here.values())
        licence = self.licence or listing.licence
        recorded = _commit(storage_of(self.repository), _RECORD)
        main = (
            "its main branch at the first download"
            if recorded
            else "its main branch now, and recorded"
        )
        if rest:
            self.events.note(
                f"{self.name}: downloading {size_text(rest)}"
                + (
                    f" of {size_text(whole)}, the rest is already downloaded,"
                    if rest < whole
                    else ""
                )
                + f" from {self.repository}, revision {listing.commit[:7]}"
                + ("" if self.revision else f" ({main})")
                + f"; licence: {licence or 'see the model page on the Hub'}"
            )
        for file, size in here.items():
            self._report(file, size)

    def _bring(self, file: File, blob: Path, commit: str) -> None:
        """Download a file, verify its hash, and only then give it its final name."""
        from huggingface_hub import hf_hub_url

        part = _part(blob)
        part.parent.mkdir(parents=True, exist_ok=True)
        if part.is_symlink():  # its name can be foreseen, since another run goes on with it
            part.unlink()
        if _size(part) > file.size:
            os.truncate(part, file.size)
        url = hf_hub_url(self.repository, file.name, revision=commit)
        before = _size(part)
        self._fill(part, file, url)
        right = file.is_at(part, verify=True)
        if not right and before < file.size:
            self.events.note(f"{self.repository}: {_wrong(file)}; trying again")
            os.truncate(part, before)
            self._fill(part, file, url)
            right = file.is_at(part, verify=True)
        if not right:
            part.unlink()
            raise ModelError(
                f"{self.repository}: {_wrong(file)}; the file was deleted",
                hint="try again; if this persists, a proxy may be altering files",
                kind="DamagedDownload",
            )
        os.replace(part, blob)

    def _fill(self, part: Path, file: File, url: str) -> None:
        """Resume a partial file until it is complete."""
        patience, whole = Patience(self._explained, self.events, started=True), False
        while (before := _size(part)) < file.size:
            try:
                receive(url, file, part, whole=whole, on_progress=partial(self._report, file))
            except (http_error(), WrongAnswerError) as error:
                if _size(part) < file.size:
                    patience.after(error, arrived=_size(part) > before)
                whole = patience.is_last and is_refused_part(error)
        part.touch()  # it may be empty

    def _report(self, file: File, done: int) -> None:
        self.events.progress(file.name, done, file.size, "bytes")

    def _patiently(self, work: Callable[[], _Result]) -> _Result:
        """Run work, retrying after a pause while the error may be temporary."""
        patience = Patience(self._explained, self.events, started=False)
        while True:
            try:
                return work()
            except http_error() as error:
                patience.after(error)


def _client() -> Any:
    """The client's own tools, of which it declares few to type checkers."""
    from huggingface_hub import utils

    return utils


def storage_of(repository: str) -> Path:
    """Return the folder of a repository in the cache, which may not exist."""
    return cache_folder() / f"models--{repository.replace('/', '--')}"


def lock_of(repository: str) -> Path:
    """Return the file that is locked while a repository changes, in a folder that exists."""
    path = cache_folder() / ".locks" / storage_of(repository).name / "malmm.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _commit(storage: Path, ref: str) -> str | None:
    path = storage / "refs" / ref
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def _record(storage: Path, commit: str) -> None:
    path = storage / "refs" / _RECORD
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        file.write(commit.encode())


def _wrong(file: File) -> str:
    return f"{file.name} does not match the hash on the Hub"


def _part(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.incomplete")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _link(path: Path, blob: Path) -> None:
    """Let path name the blob; where there are no links it moves there, as the client has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        path.symlink_to(os.path.relpath(blob, path.parent))
    except OSError:
        os.replace(blob, path)
