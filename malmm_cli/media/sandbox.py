"""Decoding in a separate process, which may crash, hang or run out of memory.

Native decoders read what strangers wrote. What they do wrong ends the child, never the process that
holds the model; the next file gets a new child. The two talk in JSON and raw arrays, so that a
child in the hands of a file can send nothing but numbers and text.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
from numpy.typing import NDArray

from malmm_cli import errors
from malmm_cli.errors import MalmmError, MediaError
from malmm_cli.media.files import shown
from malmm_cli.media.limits import MAX_PIXELS, beyond
from malmm_cli.media.sandbox_child import serve
from malmm_cli.media.sound_track import RATE, Sound, SoundTrack
from malmm_cli.processes.children import exit_of, start_apart
from malmm_cli.processes.ending import kill_tree
from malmm_cli.types import Frame, MediaInfo

__all__ = ["Limits", "Sandbox"]

LONGEST_MESSAGE = 2**30  # bytes; a picture of 16384 × 16384 is less
QUIET = 600.0  # seconds without a word from the decoder are taken for a hang


@dataclass(frozen=True)
class Limits:
    """The limits for one video.

    `pixels` of a picture, `duration` in seconds, `decoded` bytes of all the pictures that are
    chosen, and `memory` in bytes that the decoder may take, 0 for any.
    """

    pixels: int = MAX_PIXELS
    duration: float = 24 * 3600.0
    decoded: int = 2**40
    memory: int = 8 * 2**30


class Sandbox:
    """`probe` and `read` of `malmm_cli.media`, done by a child; raises MediaError for its faults.

    Kinds besides those of `probe`: Crashed, Hung, TooLarge, TooLong, and Timeout where the time
    until `deadline` (of `time.monotonic`) is over.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.deadline = math.inf
        self._child: BaseProcess | None = None
        self._talk: Connection | None = None

    def probe(self, path: str | os.PathLike[str], decoder: str = "auto") -> MediaInfo:
        """As `media.probe`; refuses what is beyond the limits."""
        path = os.fspath(path)
        request = {"do": "probe", "path": path, "decoder": decoder, "pixels": self.limits.pixels}
        reply = self._ask(path, request)
        info = MediaInfo(
            path=path,
            seconds=np.frombuffer(self._receive_bytes(path), np.float64),
            warnings=tuple(reply.pop("warnings")),
            **reply,
        )
        if info.duration > self.limits.duration:
            lasts, most = f"{info.duration:.0f} s", f"{self.limits.duration:.0f} s"
            raise beyond(path, "TooLong", lasts, most)
        return info

    def read(
        self,
        info: MediaInfo,
        seconds: Sequence[float],
        size: tuple[int, int] | None = None,
        on_warning: Callable[[str], None] | None = None,
    ) -> Iterator[Frame]:
        """As `media.read`, of the file that was probed last."""
        decoded = len(seconds) * info.width * info.height * 3
        if decoded > self.limits.decoded:
            raise beyond(info.path, "TooLarge", _bytes(decoded), _bytes(self.limits.decoded))
        request = {"do": "read", "seconds": list(seconds), "size": size}
        with closing(self._parts(info.path, request, on_warning)) as parts:
            for about, data in parts:
                pixels = np.frombuffer(data, np.uint8).reshape(about["height"], about["width"], 3)
                yield Frame(about["seconds"], about["source_seconds"], pixels)

    def probe_sound(self, path: str | os.PathLike[str], number: int | None = None) -> Sound:
        """As `media.sound.probe_sound`, on the clock of the pictures if they were probed last."""
        path = os.fspath(path)
        reply = self._ask(path, {"do": "probe sound", "path": path, "number": number})
        return Sound(path=path, track=SoundTrack(**reply.pop("track")), **reply)

    def read_sound(
        self,
        sound: Sound,
        rate: int | None = RATE,
        *,
        mix: bool = True,
        start: float = 0.0,
        stop: float | None = None,
        on_warning: Callable[[str], None] | None = None,
    ) -> Iterator[NDArray[np.float32]]:
        """As `media.sound.read_sound`, of the sound that was probed last."""
        how = {"rate": rate, "mix": mix, "start": start, "stop": stop}
        request = {"do": "read sound", **how}
        with closing(self._parts(sound.path, request, on_warning)) as parts:
            for about, data in parts:
                yield np.frombuffer(data, np.float32).reshape(about["channels"], -1)

    def _parts(
        self, path: str, request: dict[str, Any], on_warning: Callable[[str], None] | None
    ) -> Generator[tuple[dict[str, Any], bytes]]:
        """Yield what the child says of each part of its answer, and the part; warnings at last."""
        reply = self._ask(path, request)
        whole = False
        try:
            while "warnings" not in reply:
                yield reply, self._receive_bytes(path)
                reply = self._receive(path)
            whole = True
        finally:
            if not whole:
                self.close()  # its other parts are in the way
        for warning in reply["warnings"]:
            if on_warning:
                on_warning(warning)

    def close(self) -> None:
        """End the child, and what it started."""
        if self._child is not None and self._talk is not None:
            kill_tree(self._child)
            self._talk.close()
        self._child = self._talk = None

    def _ask(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        self._start()
        assert self._talk is not None
        with suppress(OSError):  # it died; receiving tells of it
            self._talk.send_bytes(json.dumps(request).encode())
        return self._receive(path)

    def _start(self) -> None:
        if self._child is not None and self._child.is_alive():
            return
        self.close()
        self._child, self._talk = start_apart(serve, self.limits.memory, daemon=True, silent=True)

    def _receive(self, path: str) -> dict[str, Any]:
        """The child's next word; raises the error that it tells of, or that it is."""
        reply: dict[str, Any] = json.loads(self._receive_bytes(path))
        if "error" not in reply:
            return reply
        kind = getattr(errors, reply.pop("error"), MalmmError)
        raise kind(reply.pop("message"), **reply)

    def _receive_bytes(self, path: str) -> bytes:
        assert self._talk is not None
        left = self.deadline - time.monotonic()
        try:
            if self._talk.poll(max(min(left, QUIET), 0.0)):
                return self._talk.recv_bytes(LONGEST_MESSAGE)
        except (EOFError, OSError):
            raise self._crashed(path) from None
        self.close()
        if left <= QUIET:
            raise MediaError(f"{shown(path)}: timed out while decoding", kind="Timeout")
        raise MediaError(f"{shown(path)}: decoding hung for {QUIET:.0f} s", kind="Hung")

    def _crashed(self, path: str) -> MediaError:
        assert self._child is not None
        how = exit_of(self._child)
        self.close()
        return MediaError(f"{shown(path)}: decoding crashed: {how}", kind="Crashed")


def _bytes(number: int) -> str:
    return f"{number / 2**30:.1f} GiB"
