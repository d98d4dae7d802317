"""The process in which `Guard` decodes; it answers until its parent is gone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from malmm_cli import media
from malmm_cli.data import MediaInfo
from malmm_cli.errors import CapacityError, MalmmError

__all__ = ["serve"]


def serve(talk: Connection, memory: int) -> None:
    """Answer requests with at most `memory` bytes of address space, 0 for any."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # what native code has to say
        os.dup2(nowhere, stream)
    if memory:
        _limit(memory)
    info: MediaInfo | None = None

    def send(told: dict[str, Any], data: bytes | None = None) -> None:
        talk.send_bytes(json.dumps(told).encode())
        if data is not None:
            talk.send_bytes(data)

    with suppress(EOFError, OSError):  # the parent is gone
        while True:
            request = json.loads(talk.recv_bytes())
            try:
                if request.pop("do") == "probe":
                    info = media.probe(request["path"], request["decoder"])
                    send(_about(info), info.seconds.tobytes())
                else:
                    assert info is not None
                    _read(info, request["seconds"], request["size"], send)
            except (EOFError, BrokenPipeError):
                raise
            except Exception as error:
                send(_told(error))


def _read(
    info: MediaInfo,
    seconds: list[float],
    size: list[int] | None,
    send: Callable[[dict[str, Any], bytes | None], None],
) -> None:
    warnings: list[str] = []
    exact = (size[0], size[1]) if size else None
    for frame in media.read(info, seconds, exact, warnings.append):
        height, width = frame.pixels.shape[:2]
        told = {"seconds": frame.seconds, "source_seconds": frame.source_seconds}
        send({**told, "height": height, "width": width}, frame.pixels.tobytes())
    send({"warnings": warnings}, None)


def _about(info: MediaInfo) -> dict[str, Any]:
    return {
        "decoder": info.decoder,
        "width": info.width,
        "height": info.height,
        "duration": info.duration,
        "source_start": info.source_start,
        "warnings": info.warnings,
    }


def _told(error: Exception) -> dict[str, Any]:
    """The error as the parent raises it again."""
    if isinstance(error, MemoryError):
        error = CapacityError("decoding takes more memory than --max-memory allows")
    if not isinstance(error, MalmmError):
        message = f"decoding failed: {type(error).__name__}: {error}"
        error = MalmmError(message, kind="Unexpected")
    name = type(error).__name__
    return {"error": name, "message": error.message, "hint": error.hint, "kind": error.kind}


def _limit(memory: int) -> None:
    """Linux keeps to it; macOS takes it and does not; Windows has no such thing."""
    try:
        import resource
    except ImportError:
        return
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
