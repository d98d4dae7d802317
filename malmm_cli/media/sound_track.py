"""What is known of a file's sound before it is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from malmm_cli.media.edits import Edit
    from malmm_cli.media.timeline import Splices

__all__ = ["RATE", "Sound", "SoundTrack"]

RATE = 16_000  # samples a second that audio encoders are trained at


@dataclass(frozen=True)
class SoundTrack:
    """A sound track: its `number`, from 1, and what the file says about it.

    `codec` is FFmpeg's name, empty for an unknown one; `rate` in samples a second and `channels`
    are 0 where the header does not tell.
    """

    number: int
    codec: str
    rate: int
    channels: int
    language: str
    title: str
    default: bool


@dataclass(frozen=True, kw_only=True)
class Sound:
    """The sound track that is read, and its place on the clock of the pictures.

    `rate` and `layout` are those of the first samples. `origin` is the file's own time, in
    seconds, of second 0. `edits` are those of an edit list, empty for none; `splices` as in
    `Track`, with the `unit` of its shifts.
    """

    path: str
    track: SoundTrack
    stream: int
    rate: int
    layout: str
    channels: int
    origin: float
    longest: float
    edits: tuple[Edit, ...] = ()
    splices: Splices | None = None
    unit: float = 1.0
