"""Errors of the Hugging Face Hub → one plain line and the next step."""

from __future__ import annotations

import errno
import math
import re
import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from malmm_cli.errors import CapacityError, MalmmError, ModelError, UsageError
from malmm_cli.hub.advice import pulling
from malmm_cli.hub.registry import KNOWN
from malmm_cli.text.words import nearest

__all__ = [
    *(
        "WrongAnswerError",
        "asked_to_wait",
        "endpoint",
        "explained",
        "http_error",
        "is_refused_part",
    ),
    *("is_old_address", "may_pass"),
]

_KEPT = "downloaded data is kept, so run the command again to resume"

# HTTP status → message and hint.
_ANSWERS = {
    401: ("the Hub rejected the token", "log in with `hf auth login`, or unset HF_TOKEN"),
    403: ("the Hub denied access", "log in with `hf auth login` as a user with access"),
    404: ("a file listed on the Hub is missing", f"try again later; {_KEPT}"),
    416: ("the Hub does not resume the download of a file", _KEPT),
    429: ("rate limited by the Hub (429)", f"wait a few minutes; {_KEPT}"),
}

# The Hub's rate limit header: no requests remain, and the seconds until the reset.
_LIMIT = re.compile(r"\br=0\b.*?\bt=([0-9]{1,12})\b", re.ASCII)

# The HTTP library's exception for endless redirects.
_CIRCLE = "TooManyRedirects"

# Status codes of a signed storage address that has expired.
_OLD = (400, 401, 403, 404, 410)

# Error codes of the Hub itself, which a new address would not fix.
_REFUSALS = ("GatedRepo", "RepoNotFound", "RevisionNotFound", "EntryNotFound")

# Exceptions raised for invalid metadata.
_NOT_METADATA = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


class WrongAnswerError(Exception):
    """A response that is not the requested part of the file."""


def explained(error: Exception, repository: str, *, record: Path | None = None) -> MalmmError:
    """Convert a client error into a MalmmError; `record` is the file with the recorded revision."""
    from huggingface_hub import errors, get_token

    status = status_of(error)
    if isinstance(error, errors.GatedRepoError):
        return ModelError(
            f"{repository} is gated: you must accept its terms first",
            hint="accept them on the model page, then log in with `hf auth login`",
            kind="GatedModel",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        way = "a newer version of malmm may pin another"
        if record:
            way = f"remove {record} to use the current main branch"
        return ModelError(
            f"the Hub does not have this revision of {repository}",
            hint=f"{way}; or use a local model folder",
        )
    if isinstance(error, WrongAnswerError):
        return ModelError(
            f"{repository}: {error}",
            hint=f"{_KEPT}; if this persists, a proxy may be altering files",
            kind="DamagedDownload",
        )
    if storage := of_storage(error):
        return ModelError(
            f"{repository}: {storage} (the Hub's file storage) returned HTTP {status}",
            hint=f"check for a firewall or a wrong system clock; {_KEPT}",
            kind="HubError",
        )
    # without a login, the Hub does not distinguish private from missing repositories
    if isinstance(error, errors.RepositoryNotFoundError) or (status == 401 and not get_token()):
        return _unknown(repository)
    if status is not None:
        summary, hint = _ANSWERS.get(status, (f"the Hub returned HTTP {status}", _KEPT))
        if may_pass(error, started=True) and (seconds := asked_to_wait(error)):
            summary = f"{summary}, retry after {seconds} s"
            hint = "downloaded data is kept, so run the command again after that"
        return ModelError(f"{repository}: {summary}", hint=hint, kind="HubError")
    if isinstance(error, http_error()):
        return _unreached(error, repository)
    if isinstance(error, OSError):
        return _not_stored(error, repository)
    if isinstance(error, _NOT_METADATA):
        return ModelError(
            f"{repository}: unexpected response (a proxy or login page?)",
            hint="check HF_ENDPOINT and your proxy settings",
            kind="HubError",
        )
    return ModelError(f"{repository} cannot be downloaded: {error}", hint=f"try again; {_KEPT}")


def _unknown(repository: str) -> MalmmError:
    """Return the error for a repository that does not exist or is private."""
    known = [known.repository for known in KNOWN.values() if known.repository]
    if repository in known:
        return ModelError(
            f"the Hub has no public repository {repository}",
            hint="it may have moved or need a login (`hf auth login`); see `malmm models`",
            kind="HubError",
        )
    return UsageError(
        f"repository {repository} not found on the Hub, or no access",
        hint=f"{nearest(repository, known, 0.8)}check the spelling; if it is private, log in with "
        "`hf auth login`",
        kind="UnknownModel",
    )


def _not_stored(error: OSError, repository: str) -> MalmmError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return (CapacityError if full else ModelError)(
        f"{repository} cannot be saved: {error}",
        hint=f"{'free up disk space' if full else 'check the folder'}, or set HF_HOME to "
        f"another folder; {_KEPT}",
    )


def endpoint() -> str:
    """Return a note with HF_ENDPOINT, if it is set."""
    from huggingface_hub import constants

    other = constants.ENDPOINT != "https://huggingface.co"
    return f" (HF_ENDPOINT is {constants.ENDPOINT})" if other else ""


def may_pass(error: Exception, *, started: bool) -> bool:
    """Whether a retry may help; never true for a Hub that was not reached at all."""
    status = status_of(error)
    if status is not None:
        return status in (408, 416, 429) or status >= 500
    kind = type(error).__name__
    if kind == _CIRCLE or kind.startswith("Unsupported"):
        return False
    return started or not kind.startswith("Connect")


def is_old_address(error: Exception) -> bool:
    """Whether a storage address was refused; the Hub can issue a new one."""
    response = getattr(error, "response", None)
    if response is None or response.status_code not in _OLD or not response.history:
        return False
    return response.headers.get("X-Error-Code") not in _REFUSALS


def of_storage(error: Exception) -> str | None:
    """Return the storage host that refused the request, or None for the Hub itself."""
    if not is_old_address(error):
        return None
    response: Any = error.response  # type: ignore[attr-defined]
    hub, storage = response.history[0].url, response.url
    return None if hub.netloc == storage.netloc else str(storage.host)


def is_refused_part(error: Exception) -> bool:
    """Whether to request the whole file because the missing part is refused."""
    return isinstance(error, WrongAnswerError) or status_of(error) == 416


def asked_to_wait(error: Exception) -> int | None:
    """Return the seconds that a response asks to wait, in any of its three forms."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    after = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,12}", after):
        return int(after)
    if found := _LIMIT.search(headers.get("RateLimit", "")):
        return int(found[1])
    now = _seconds(headers.get("Date", "")) or time.time()  # our clock may be wrong
    until = _seconds(after)
    return None if until is None else max(math.ceil(until - now), 0)


def _seconds(date: str) -> float | None:
    """Parse an HTTP date (GMT) into seconds since 1970; None if it is invalid."""
    try:
        parsed = parsedate_to_datetime(date)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def http_error() -> Any:
    """Return the base exception of the HTTP library that the client uses."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__mro__[1]


def status_of(error: Exception) -> int | None:
    """Return the HTTP status of an error, or None without a response."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _unreached(error: Exception, repository: str) -> MalmmError:
    """Return the error for a missing or incomplete response."""
    kind = type(error).__name__
    detail = str(error).split(" (")[0]
    reason = f": {detail}" if detail else ""
    other = _elsewhere(error)
    if other and kind.startswith("Unsupported"):
        return ModelError(
            f"{repository}: the Hub returned an address that is not http(s): "
            f"{other.scheme}://{other.host}",
            hint=f"use another mirror of the Hub{endpoint()}, or a local model folder",
            kind="HubError",
        )
    who = f"{other.host} (the Hub's file storage)" if other else "the Hub"
    if "Timeout" in kind:
        broken = f"{who} timed out"
    elif kind == _CIRCLE:
        broken = "the Hub redirects in circles"
    elif kind.startswith(("Connect", "Unsupported", "Proxy")):
        broken = f"{who} is unreachable{reason}"
    else:
        broken = f"connection to the Hub lost{reason}"
    return ModelError(
        f"{repository}: {broken}",
        hint=f"check the connection{'' if other else endpoint()}; downloaded data is kept. "
        f"{pulling(repository)}",
        kind="NoNetwork",
    )


def _elsewhere(error: Exception) -> Any:
    """Return the address that did not respond, or None for the Hub itself."""
    from huggingface_hub import constants

    try:
        url = error.request.url  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):  # the library's, where nothing was asked for yet
        return None
    hub = type(url)(constants.ENDPOINT)
    here = url.netloc == hub.netloc and url.scheme in ("http", "https", hub.scheme)
    return None if here else url
