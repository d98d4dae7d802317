"""A name → a folder of weights: bundled, on this disk, or fetched from the Hugging Face Hub."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from malmm_cli.errors import MalmmError, ModelError, UsageError

__all__ = ["KNOWN", "Known", "Located", "is_cached", "locate"]

# Named patterns: never a pickle, never code.
_WANTED = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
    "qformer_tokenizer/*",
]
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Known:
    """A model with a short name; `repository` is None for the one inside the package."""

    name: str
    repository: str | None
    licence: str
    note: str = ""


KNOWN = {
    known.name: known
    for known in (
        Known("vicuna-7b", "Salesforce/instructblip-vicuna-7b", "research only (LLaMA licence)"),
        Known("vicuna-13b", "Salesforce/instructblip-vicuna-13b", "research only (LLaMA licence)"),
        Known("flan-t5-xl", "Salesforce/instructblip-flan-t5-xl", "MIT"),
        Known("flan-t5-xxl", "Salesforce/instructblip-flan-t5-xxl", "MIT"),
        Known("tiny", None, "MIT", note="untrained: its words mean nothing yet"),
    )
}


@dataclass(frozen=True)
class Located:
    """Where a model lies; `revision` is the Hub's commit, None for what never was there."""

    name: str
    folder: Path
    revision: str | None = None
    note: str = ""


def locate(name: str, *, offline: bool = False) -> Located:
    """The folder for a short name, a Hub repository or a folder's path; fetched when need be.

    Raises UsageError for a name that is none of these, ModelError where nothing can be fetched.
    """
    known = KNOWN.get(name)
    if known is not None:
        if known.repository is None:
            return Located(name, Path(__file__).parent / "assets" / name, note=known.note)
        return _fetch(name, known.repository, offline=offline)
    folder = os.path.expanduser(name)
    if os.path.isdir(folder):
        return Located(name, Path(folder))
    if os.path.exists(folder):
        raise UsageError(f"{name}: a model is a folder, this is a file")
    if not _REPOSITORY.fullmatch(name):
        raise _unknown(name)
    return _fetch(name, name, offline=offline)


def is_cached(known: Known) -> bool:
    """Whether a known model can be used without a network."""
    if known.repository is None:
        return True
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(known.repository, "config.json"), str)


def _unknown(name: str) -> UsageError:
    near = difflib.get_close_matches(name, KNOWN, n=1)
    suggestion = f"did you mean {near[0]}? " if near else ""
    return UsageError(
        f"unknown model {name!r}",
        hint=f"{suggestion}known: {', '.join(KNOWN)}, a Hub repository (owner/name) or a folder",
        kind="UnknownModel",
    )


def _fetch(name: str, repository: str, *, offline: bool) -> Located:
    from httpx import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        folder = snapshot_download(repository, allow_patterns=_WANTED, local_files_only=offline)
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{name}: {repository} is not on this machine and the Hub cannot be reached",
            hint="connect once to fetch it, give a folder, or try --model tiny",
            kind="NotCached",
        ) from error
    except GatedRepoError as error:
        raise _refused(
            f"{repository} asks for consent first", "log in with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise _refused(f"the Hub has no repository {repository}", "check the spelling") from error
    except HFValidationError:
        raise _unknown(name) from None
    except (OSError, HTTPError) as error:
        raise _refused(f"{repository} cannot be fetched: {error}", "try again") from error
    return Located(name, Path(folder), revision=Path(folder).name)


def _refused(message: str, hint: str) -> MalmmError:
    return ModelError(" ".join(message.split()), hint=hint)
