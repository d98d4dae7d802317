"""The process in which `Sandbox` decodes; it ends with its parent."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from malmm_cli import media
from malmm_cli.errors import CapacityError, MalmmError
from malmm_cli.media.sound_track import Sound
from malmm_cli.processes.children import begin_apart
from malmm_cli.types import MediaInfo

__all__ = ["serve"]


LEAST = 2**26  # bytes to decode anything in


def serve(talk: Connection, memory: int) -> None:
    """Answer requests with at most `memory` bytes of address space, 0 for any."""
    begin_apart()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # what native code has to say
        os.dup2(nowhere, stream)
    for name in (
        "geometry",
        "nvdec",
        "pillow",
        "pyav",
        "sound",
        "track",
    ):  # half loaded, they fail in odd ways
        import_module(f"malmm_cli.media.{name}")
    cramped = memory > 0 and not _limit(memory)
    info: MediaInfo | None = None
    heard: Sound | None = None

    def send(reply: dict[str, Any], data: bytes | None = None) -> None:
        talk.send_bytes(json.dumps(reply).encode())
        if data is not None:
            talk.send_bytes(data)

    with suppress(EOFError, OSError):  # the parent is gone
        while True:
            request = json.loads(talk.recv_bytes())
            try:
                if cramped:
                    raise MemoryError
                do = request.pop("do")
                if do == "probe":
                    info = media.probe(request["path"], request["decoder"], request["pixels"])
                    send(_metadata(info), info.seconds.tobytes())
                elif do == "probe sound":
                    from malmm_cli.media.sound import probe_sound  # and PyAV

                    pictures = info if info and info.path == request["path"] else None
                    heard = probe_sound(request["path"], request["number"], pictures)
                    send(_about(heard))
                elif do == "read sound":
                    assert heard is not None
                    _listen(heard, request, send)
                else:
                    assert info is not None
                    _read(info, request["seconds"], request["size"], send)
            except (EOFError, BrokenPipeError):
                raise
            except Exception as error:
                send(_as_dict(error))


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
        reply = {"seconds": frame.seconds, "source_seconds": frame.source_seconds}
        send({**reply, "height": height, "width": width}, frame.pixels.tobytes())
    send({"warnings": warnings}, None)


def _listen(
    sound: Sound, request: dict[str, Any], send: Callable[[dict[str, Any], bytes | None], None]
) -> None:
    from malmm_cli.media.sound import read_sound

    warnings: list[str] = []
    for chunk in read_sound(sound, **request, on_warning=warnings.append):
        send({"channels": chunk.shape[0]}, chunk.tobytes())
    send({"warnings": warnings}, None)


def _about(sound: Sound) -> dict[str, Any]:
    kept = ("stream", "rate", "layout", "channels", "origin", "longest")
    return {"track": asdict(sound.track), **{name: getattr(sound, name) for name in kept}}


def _metadata(info: MediaInfo) -> dict[str, Any]:
    return {
        "decoder": info.decoder,
        "width": info.width,
        "height": info.height,
        "duration": info.duration,
        "source_start": info.source_start,
        "warnings": info.warnings,
    }


def _as_dict(error: Exception) -> dict[str, Any]:
    """The error as the parent raises it again."""
    if _wants_memory(error):
        error = CapacityError(
            "decoding needs more memory than --max-memory allows",
            hint="raise --max-memory, or set it to 0 for no limit",
        )
    if not isinstance(error, MalmmError):
        message = f"decoding failed: {type(error).__name__}: {error}"
        error = MalmmError(message, kind="Unexpected")
    name = type(error).__name__
    return {"error": name, "message": error.message, "hint": error.hint, "kind": error.kind}


def _wants_memory(error: Exception) -> bool:
    """Memory is also what a library lacks that cannot be loaded any more."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return any(sign in str(error) for sign in ("failed to map", "annot allocate memory"))


def _limit(memory: int) -> bool:
    """False if nothing could be decoded in so little, where a first step would be a crash.

    Linux keeps to it; macOS takes it and does not; Windows has no such thing.
    """
    import psutil

    if psutil.LINUX and memory < psutil.Process().memory_info().vms + LEAST:
        return False
    try:
        import resource
    except ImportError:
        return True
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    return True
