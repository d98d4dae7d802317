"""A name → a folder of weights: bundled, on this disk, or fetched from the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from malmm_cli.checkpoints.layout import read_config
from malmm_cli.errors import CapacityError, ModelError, UsageError
from malmm_cli.events import SILENT, Events
from malmm_cli.hub.advice import fitting, instead, known_as, pulling, recommended
from malmm_cli.hub.download import (
    Download,
    arrived,
    cache_folder,
    cached,
    is_offline,
    nearest_folder,
)
from malmm_cli.hub.origin import Origin, origin_of
from malmm_cli.hub.registry import DEFAULT, KNOWN, Known, memory_by_form, memory_needed
from malmm_cli.hub.scores import SCORES
from malmm_cli.hub.snapshot import read_weights, size_text
from malmm_cli.hub.stored import remove, size_of, stored_size
from malmm_cli.text.words import nearest

__all__ = [
    "DEFAULT",
    "KNOWN",
    "Located",
    "Origin",
    "cache_folder",
    "check_memory",
    "describe",
    "fits",
    "is_offline",
    "lasting",
    "locate",
    "model_type",
    "nearest_folder",
    "pulling",
    "recommended",
    "removable",
    "remove",
    "same_model",
    "size_text",
]

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_ASSETS = Path(__file__).parents[1] / "assets"


@dataclass(frozen=True)
class Located:
    """A model's folder; `revision` is the Hub's commit, None for a local model."""

    name: str
    folder: Path
    revision: str | None = None
    origin: Origin = field(default_factory=Origin)


@dataclass(frozen=True)
class _Named:
    """A resolved model name: a folder or a repository, and its known properties."""

    known: Known | None
    folder: Path | None = None
    repository: str = ""

    @property
    def revision(self) -> str | None:
        return self.known.revision if self.known else None


def locate(
    name: str,
    *,
    offline: bool = False,
    verify: bool = False,
    check_memory: Callable[[int], Any] | None = None,
    events: Events = SILENT,
) -> Located:
    """Locate a model by short name, Hub repository or path; downloads it if needed.

    `verify` compares what is here with the Hub's hashes; `check_memory` and `events` are those of
    `Download`. Callers enclose this in a stage, `events.stage("download", "bytes")`.
    Raises UsageError for a name that is none of these, ModelError where nothing can be fetched,
    CapacityError where there is no room for it.
    """
    named = _find(name)
    if named.folder:
        return Located(name, named.folder, origin=origin_of(named.folder))
    check, known = check_memory or _ignore, named.known
    if known and known.parameters and not _folder(named):
        check(known.parameters)  # what cannot fit is not asked for
        check = _ignore
        if name == DEFAULT and not verify and not is_offline(asked=offline):
            events.note(f"note: {instead()}")  # before what is large begins to come
    folder = Download(
        name=name,
        repository=named.repository,
        revision=named.revision,
        licence=named.known.licence if named.known else None,
        parameters=named.known.parameters if named.known else None,
        check_memory=check,
        events=events,
    ).run(offline=offline, verify=verify)
    return Located(name, folder, revision=folder.name, origin=origin_of(folder))


def describe(name: str, *, files: bool = True, disk: bool = False) -> dict[str, Any]:
    """Describe a model without the network, including its `files` if downloaded.

    Sizes are in bytes; those of models that are not downloaded are approximate, or None if
    unknown. With `disk`, which walks all files of the model, `size` is that on disk.
    Raises ModelError for files that are those of no model.
    """
    named = _find(name)
    known = named.known
    folder = _folder(named)
    weights = read_weights(folder) if folder and (files or not named.repository) else None
    counted = weights or known
    parameters, whole = (counted.parameters, counted.whole) if counted else (None, None)
    scores = SCORES.get(known.name) if known else None
    found = {
        "name": name,
        "repository": named.repository or None,
        "revision": folder.name if folder and named.repository else named.revision,
        "pinned": named.revision is not None,
        "licence": known.licence if known else None,
        "parameters": parameters,
        "download": known.download if known else None,
        "memory": memory_by_form(parameters, whole),
        "scores": scores and asdict(scores),
        "here": folder is not None,
        "folder": str(folder) if folder else None,
        "shards": weights.shards if weights else None,
        "stored": weights.dtypes if weights else None,
        "note": origin_of(folder).note if folder else "",
        "arrived": 0 if folder else arrived(named.repository, named.revision),
    }
    if disk:
        found["size"] = size_of(named.folder) if named.folder else stored_size(named.repository)
    return found


def removable(name: str) -> tuple[str, int]:
    """The repository of a model that was downloaded, whole or in part, and its bytes on disk.

    Raises UsageError for any other model.
    """
    named = _find(name)
    if named.known and named.known.repository is None:
        raise UsageError(f"{name} is part of malmm", hint="it goes with `pip uninstall malmm`")
    if named.folder:
        raise UsageError(f"{name}: is not a download", hint="remove the folder yourself")
    if not (size := stored_size(named.repository)):
        raise UsageError(f"{name} is not downloaded", hint="`malmm models list` shows what is")
    return named.repository, size


def model_type(name: str) -> str | None:
    """The `model_type` of a model; None where that cannot be known before it is downloaded.

    A folder of no model also gives None: `locate` says what is wrong with it. Raises UsageError for
    a name that no model has.
    """
    named = _find(name)
    try:
        if named.known and named.known.model_type:
            return named.known.model_type
        folder = _folder(named)
        return None if folder is None else str(read_config(folder)["model_type"])
    except ModelError:
        return None


def check_memory(
    name: str, parameters: int, dtype: str, memory: int | None, quantize: str | None = None
) -> None:
    """Raise CapacityError, with a suggestion, if the weights take more than memory bytes."""
    if memory is None:
        return
    whole = None if quantize is None else _whole(name)
    need = memory_needed(parameters, dtype, quantize, whole)
    if need <= memory:
        return
    form = dtype if quantize is None else f"{dtype} and {quantize}"
    raise CapacityError(
        f"{name} in {form} needs {size_text(need)} of memory, but only {size_text(memory)} is "
        f"free: {size_text(need - memory)} too little",
        hint=fits(name, parameters, memory),
    )


def fits(name: str, parameters: int, memory: int) -> str:
    """Say in which form a model fits in `memory` bytes or, if in none, which one does."""
    here = known_as(name) is None or _folder(_find(name)) is not None
    return fitting(name, parameters, memory, here=here, whole=_whole(name))


def _whole(name: str) -> int | None:
    """How many of a model's parameters are never quantised; None where that cannot be known."""
    named = _find(name)
    if named.known and named.known.parameters:
        return named.known.whole
    folder = _folder(named)
    return read_weights(folder).whole if folder else None


def _find(name: str) -> _Named:
    known = KNOWN.get(name)
    if known is None:
        folder = os.path.expanduser(name)
        if os.path.isdir(folder):
            return _Named(None, Path(folder))
        if os.path.exists(folder):
            raise UsageError(
                f"{name}: is a file; a model is a folder",
                hint="give the folder that contains it",
                option="model",
            )
        if not _is_repository(name):
            raise UsageError(
                f"unknown model {name!r}",
                hint=f"{nearest(name, KNOWN)}known: {', '.join(KNOWN)}, a Hub repository "
                "(owner/name) or a folder",
                kind="UnknownModel",
                option="model",
            )
        known = next((k for k in KNOWN.values() if k.repository == name), None)
    elif known.repository is None:
        return _Named(known, _ASSETS / name)
    return _Named(known, repository=known.repository or name if known else name)


def _folder(named: _Named) -> Path | None:
    """The folder of a model that is on this machine."""
    return named.folder or cached(named.repository, named.revision)


def lasting(name: str) -> str:
    """The name of a model, or the absolute path of its folder: it holds in every folder."""
    folder = os.path.expanduser(name)
    return os.path.abspath(folder) if name not in KNOWN and os.path.isdir(folder) else name


def same_model(one: str, other: str) -> bool:
    """Whether two names refer to the same repository or folder."""
    one, other = lasting(one), lasting(other)
    if os.path.isabs(one) and os.path.isabs(other):
        return os.path.isdir(one) and os.path.isdir(other) and os.path.samefile(one, other)
    return _repository(one) == _repository(other)


def _repository(name: str) -> str:
    known = KNOWN.get(name)
    return known.repository or name if known else name


def _is_repository(name: str) -> bool:
    """Whether a name is a valid Hub repository id."""
    if not _REPOSITORY.fullmatch(name):
        return False
    from huggingface_hub import utils

    client: Any = utils
    try:
        client.validate_repo_id(name)
    except ValueError:
        return False
    return True


def _ignore(*_: Any) -> None:
    pass
