"""The download of one file, resumed where it stopped and checked.

Nothing is ever taken away from what was here, and nothing is added that cannot belong to the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from malmm_cli.hub.errors import WrongAnswerError
from malmm_cli.hub.snapshot import File

__all__ = ["receive"]

_PART = re.compile(r"bytes (?:([0-9]+)-([0-9]+)|\*)/([0-9]+|\*)")


def receive(
    url: str, file: File, path: Path, *, whole: bool, on_progress: Callable[[int], None]
) -> None:
    """Download the missing bytes of a file and append them to path.

    `whole` asks for the file from its beginning; bytes that `path` already holds are skipped.
    Raises WrongAnswerError, or what the client raises when there is no answer or the connection is
    lost.
    """
    from huggingface_hub import constants, utils

    client: Any = utils
    done = path.stat().st_size if path.exists() else 0
    headers = {**client.build_hf_headers(), "Accept-Encoding": "identity"}
    if not whole:
        headers["Range"] = f"bytes={done}-"
    with client.get_session().stream(
        "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
    ) as response:
        known = done - _start(response, file, 0 if whole else done)
        before = done
        with path.open("ab") as out:
            for chunk in response.iter_bytes():
                new = chunk[known : known + file.size - done]
                known = max(known - len(chunk), 0)
                if new:
                    out.write(new)
                    done += len(new)
                    on_progress(done)
                if done == file.size:
                    break
    if before < done < file.size and response.status_code == 200:
        os.truncate(path, before)
        on_progress(before)
        _compare(file, str(done))
    if done == before < file.size:
        raise WrongAnswerError(f"got no data for {file.name}; {file.size - done} bytes are missing")


def _start(response: Any, file: File, asked: int) -> int:
    """Return the offset of a response in the file; raises WrongAnswerError."""
    from huggingface_hub import utils

    client: Any = utils
    status, headers = response.status_code, response.headers
    part = _PART.fullmatch(headers.get("Content-Range", ""))
    if part and status in (206, 416):
        _compare(file, part[3])
    client.hf_raise_for_status(response)
    for answer in response.history:
        _compare_hash(file, answer.headers.get("X-Linked-Etag", ""))
    if headers.get("Content-Type", "").startswith("text/html"):
        raise ValueError("an HTML page")
    plain = headers.get("Content-Encoding", "identity") == "identity"
    length = int(headers.get("Content-Length", 0)) if plain else 0
    if status == 200:
        _compare(file, str(length or file.size))
        return 0
    if status != 206 or not (plain or asked == 0):
        raise WrongAnswerError(f"got no data for {file.name} (HTTP {status})")
    if not (part and part[1]) or headers.get("Content-Type", "").startswith("multipart/"):
        raise WrongAnswerError(f"got part of {file.name} without a Content-Range")
    first, last = int(part[1]), int(part[2])
    if first != asked or first + length > last + 1:
        raise WrongAnswerError(f"got the wrong part of {file.name}")
    return first


def _compare(file: File, size: str) -> None:
    """Raise WrongAnswerError if the size differs from the file's; "*" is unknown."""
    if size not in ("*", str(file.size)):
        raise WrongAnswerError(f"{file.name} has {size} bytes, not {file.size}")


def _compare_hash(file: File, etag: str) -> None:
    """Raise WrongAnswerError if a hash of the same kind differs from the file's."""
    etag = etag.removeprefix("W/").strip('"')
    if len(etag) == len(file.hash) and etag != file.hash:
        raise WrongAnswerError(f"{file.name} is not the file listed on the Hub")
