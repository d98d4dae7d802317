"""What goes wrong between here and the Hub → one plain line and the next step."""

from __future__ import annotations

import errno
from typing import Any

from malmm_cli.errors import CapacityError, MalmmError, ModelError, UsageError
from malmm_cli.hub.known import KNOWN, nearest

__all__ = ["explained", "http_error", "may_pass", "status_of"]

_KEPT = "what has arrived is kept, so run it again to go on"

# What the Hub answers with → what that means, and what to do.
_ANSWERS = {
    401: ("the Hub does not accept the token", "log in with `hf auth login`, or unset HF_TOKEN"),
    403: ("the Hub refuses access", "log in with `hf auth login` as someone who may read it"),
    404: ("the Hub does not have what it lists", f"try again later; {_KEPT}"),
    429: ("the Hub wants fewer requests", f"wait some minutes; {_KEPT}"),
}


def explained(error: Exception, repository: str) -> MalmmError:
    """The error as a user can understand it."""
    from huggingface_hub import errors

    status = status_of(error)
    if isinstance(error, errors.GatedRepoError):
        return ModelError(
            f"{repository} is given to those who have agreed to its terms",
            hint="agree to them on its page on the Hub, then log in with `hf auth login`",
            kind="GatedModel",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(
            f"the Hub does not have this revision of {repository}",
            hint="a newer version of malmm may know another; a folder of weights works too",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        near = nearest(repository, [known.repository or "" for known in KNOWN.values()], 0.8)
        return UsageError(
            f"the Hub has no repository {repository} that you may see",
            hint=f"{near}check the spelling; if it is private, log in with `hf auth login`",
            kind="UnknownModel",
        )
    if status is not None:
        said, hint = _ANSWERS.get(status, (f"the Hub answers with error {status}", _KEPT))
        return ModelError(f"{repository}: {said}", hint=hint, kind="HubError")
    if isinstance(error, http_error()):
        return ModelError(
            f"{repository}: {_broken(error)}",
            hint=f"check the connection; {_KEPT}. A folder of weights or --model tiny needs none",
            kind="NoNetwork",
        )
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return (CapacityError if full else ModelError)(
            f"{repository} cannot be stored: {error}",
            hint=f"{'free some room' if full else 'look at the folder'}, or let HF_HOME name a "
            f"folder elsewhere; {_KEPT}",
        )
    if isinstance(error, ValueError | LookupError | TypeError):  # it is not what metadata look like
        return ModelError(
            f"{repository}: what answers is not the Hub",
            hint="a proxy or a login page may stand in between, or HF_ENDPOINT be wrong",
            kind="HubError",
        )
    return ModelError(f"{repository} cannot be fetched: {error}", hint=f"try again; {_KEPT}")


def may_pass(error: Exception, *, started: bool) -> bool:
    """Whether waiting may help; a Hub that was never reached is not waited for."""
    status = status_of(error)
    if status is not None:
        return status in (408, 429) or status >= 500
    return started or not type(error).__name__.startswith(("Connect", "Unsupported"))


def http_error() -> Any:
    """What the HTTP library raises that the client uses, of which there are several."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__mro__[1]


def status_of(error: Exception) -> int | None:
    """The status that the Hub answered with, None where it did not answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _broken(error: Exception) -> str:
    kind = type(error).__name__
    said = str(error).split(" (")[0]
    reason = f": {said}" if said else ""
    if "Timeout" in kind:
        return "the Hub does not answer in time"
    if kind.startswith(("Connect", "Unsupported", "Proxy")):
        return f"the Hub cannot be reached{reason}"
    return f"the line to the Hub broke{reason}"
