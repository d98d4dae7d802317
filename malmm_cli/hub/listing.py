"""The Hub's description of a repository: its commit, its files, its licence.

The client's own reader of it stops at any of a hundred fields that a mirror leaves out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from malmm_cli.hub.snapshot import File, file_of

__all__ = ["Listing", "list_of"]

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Listing:
    """A repository at a commit; None marks a file without size or hash."""

    commit: str
    files: dict[str, File | None]
    parameters: int | None
    licence: str | None


def list_of(repository: str, revision: str) -> Listing:
    """Fetch the listing; raises the client's errors, or ValueError, KeyError or TypeError."""
    from huggingface_hub import constants, utils

    client: Any = utils
    response = client.get_session().get(
        f"{constants.ENDPOINT}/api/models/{repository}/revision/{quote(revision, safe='')}",
        params={"blobs": True},
        headers=client.build_hf_headers(),
        timeout=constants.HF_HUB_ETAG_TIMEOUT,
    )
    client.hf_raise_for_status(response)
    payload = response.json()
    commit = str(payload["sha"])
    if not _COMMIT.fullmatch(commit):
        raise ValueError("not the commit of a repository")
    return Listing(
        commit,
        {entry["rfilename"]: _file(entry) for entry in payload.get("siblings") or []},
        _within(payload, "safetensors", "total", int),
        _within(payload, "cardData", "license", str),
    )


def _file(entry: dict[str, Any]) -> File | None:
    """Parse a listed file; large files have the LFS hash, not that of the git pointer."""
    large = entry.get("lfs")
    digest = entry.get("blobId") if large is None else large.get("sha256")
    return file_of(entry["rfilename"], entry.get("size"), digest)


def _within(payload: dict[str, Any], group: str, name: str, kind: type) -> Any:
    """Return an optional nested field if it has the expected type."""
    found = payload.get(group)
    value = found.get(name) if isinstance(found, dict) else None
    return value if isinstance(value, kind) else None
