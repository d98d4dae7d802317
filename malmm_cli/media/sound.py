"""From a file to its sound: `sound_tracks` lists it, `probe_sound` chooses, `read_sound` streams.

FFmpeg's resampler, through PyAV, changes the rate. Memory use does not grow with the length.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from malmm_cli.errors import MediaError, UsageError
from malmm_cli.media.boxes import boxes_of
from malmm_cli.media.edits import Edit, edits_of
from malmm_cli.media.files import PLAYLISTS, TEXTS, check, shown
from malmm_cli.media.packets import open_file
from malmm_cli.media.sound_clock import Piece, on_clock
from malmm_cli.media.sound_decoding import Decoder, seconds_of
from malmm_cli.media.sound_track import RATE, Sound, SoundTrack
from malmm_cli.media.timeline import DAY
from malmm_cli.media.track import Track
from malmm_cli.text.words import counted
from malmm_cli.types import MediaInfo

__all__ = ["probe_sound", "read_sound", "sound_tracks"]

WARM_UP = 0.2  # seconds to decode before an edit, whose first samples depend on earlier ones


def sound_tracks(path: str | os.PathLike[str]) -> tuple[SoundTrack, ...]:
    """List the sound tracks of a file; none is an empty tuple.

    Raises MediaError for what is no media file, of the kinds of `media.probe`.
    """
    path = os.fspath(path)
    check(path)
    with open_file(path) as container:
        return _tracks(path, container)


def probe_sound(
    path: str | os.PathLike[str], number: int | None = None, pictures: MediaInfo | None = None
) -> Sound:
    """Find a sound track of a file: the default one, or that of a number, from 1.

    `pictures`, from `media.probe` of the same file, gives the clock: second 0 is the first picture,
    and sound that starts later begins with silence. Without it second 0 is where sound starts.

    Raises UsageError for a number that the file does not have; MediaError of the kind NoSound for
    a file without sound, BrokenSound where none of it can be decoded, else as `media.probe`.
    """
    path = os.fspath(path)
    check(path)
    with open_file(path) as container:
        tracks = _tracks(path, container)
        track = _chosen(path, tracks, number)
        stream = container.streams.audio[track.number - 1]
        decoder = Decoder(container, stream)
        frame = next((frame for frame, _ in decoder.frames()), None)
        if frame is None:
            raise _broken(path, track)
        start = seconds_of(frame)
        edits = _edits(path, container, stream)
        joined = container.format.name in {"mpegts", "mpeg"}
        index = stream.index
    splices, unit = None, 1.0
    if isinstance(pictures, Track):
        splices, unit = pictures.splices, pictures.unit
    if pictures is not None:
        origin = pictures.source_start
    else:
        origin = _first_shown(edits) if edits else (start or 0.0)
    return Sound(
        path=path,
        track=track,
        stream=index,
        rate=frame.sample_rate,
        layout=frame.layout.name,
        channels=frame.layout.nb_channels,
        origin=origin,
        longest=10.0 if joined else DAY,
        edits=edits,
        splices=splices,
        unit=unit,
    )


def read_sound(
    sound: Sound,
    rate: int | None = RATE,
    *,
    mix: bool = True,
    start: float = 0.0,
    stop: float | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Yield the sound from second `start` on in chunks (C, n) of at most a second, full scale ±1.

    `rate` is in samples a second, None the track's own. C is 1 with `mix`: the mean of left and
    right, to which FFmpeg first brings more channels; else C is the track's own. Gaps, and what
    cannot be decoded, are silence. With `stop`, in seconds, there is exactly so much: silence where
    the sound is shorter; without, the end is that of the sound.

    `on_warning` is told once, at the end, about damage.
    """
    rate = rate or sound.rate
    layout = sound.layout
    if mix and sound.channels > 2:
        layout = "stereo"
    damage = _Damage()
    channels = 2 if layout == "stereo" else sound.channels
    first = round(start * rate)
    last = None if stop is None else max(round(stop * rate), first)
    with closing(_pieces(sound, rate, layout, damage)) as pieces:
        for chunk in on_clock(pieces, channels, rate, first, last):
            yield chunk.mean(0, keepdims=True) if mix else chunk
    if damage.failed and on_warning is not None:
        lost = f"{damage.failed} of {counted(damage.packets, 'packet')} of sound"
        on_warning(f"damaged: {lost} cannot be decoded; silence instead")


@dataclass
class _Damage:
    """How many packets there were, and how many of them could not be decoded."""

    packets: int = 0
    failed: int = 0


def _pieces(sound: Sound, rate: int, layout: str, damage: _Damage) -> Generator[Piece]:
    """Yield resampled stretches of sound and where they belong, in samples from second 0."""
    for begin, edit in _windows(sound):
        shift, low, high, medium = -sound.origin, None, None, 0.0
        if edit is not None:
            if edit.medium is None:
                continue
            medium = edit.medium
            shift += begin - medium
            low = round((begin - sound.origin) * rate)
            high = low + round(edit.length * rate) if edit.length else None
        with open_file(sound.path) as container:
            stream = container.streams[sound.stream]
            assert isinstance(stream, AudioStream)
            decoder = Decoder(container, stream, sound.splices, sound.unit)
            if medium > 1:
                decoder.seek(medium - WARM_UP)
            try:
                for seconds, samples in decoder.resampled(rate, layout, sound.longest):
                    place = round((seconds + shift) * rate)
                    if high is not None and place >= high:
                        break
                    yield Piece(place, samples, low, high)
            finally:
                damage.packets += decoder.packets
                damage.failed += decoder.failed


def _windows(sound: Sound) -> Iterator[tuple[float, Edit | None]]:
    """Yield each edit and when it begins; one None where there is no edit list."""
    begin = 0.0
    for edit in sound.edits:
        yield begin, edit
        begin += edit.length
    if not sound.edits:
        yield 0.0, None


# --- what a file says


def _tracks(path: str, container: InputContainer) -> tuple[SoundTrack, ...]:
    if container.format.name in PLAYLISTS | TEXTS:
        return ()
    return tuple(
        SoundTrack(
            number=number,
            codec=stream.codec_context.name if stream.codec_context else "",
            rate=(stream.rate or 0) if stream.codec_context else 0,
            channels=stream.channels if stream.codec_context else 0,
            language=stream.language or "",
            title=stream.metadata.get("title", ""),
            default=bool(stream.disposition & av.stream.Disposition.default),
        )
        for number, stream in enumerate(container.streams.audio, start=1)
    )


def _chosen(path: str, tracks: tuple[SoundTrack, ...], number: int | None) -> SoundTrack:
    if not tracks:
        hint = "use --audio off to go on without"
        raise MediaError(f"{shown(path)}: no sound track", hint=hint, kind="NoSound")
    if number is None:
        track = next((track for track in tracks if track.default and track.codec), None)
        track = track or next((track for track in tracks if track.codec), tracks[0])
    elif 1 <= number <= len(tracks):
        track = tracks[number - 1]
    else:
        found = counted(len(tracks), "sound track")
        raise UsageError(
            f"--audio-track {number}: {shown(path)} has {found}",
            hint=f"give a number from 1 to {len(tracks)}" if len(tracks) > 1 else "leave it out",
        )
    if not track.codec:
        raise MediaError(
            f"{shown(path)}: sound track {track.number} has an unknown codec", kind="Unsupported"
        )
    return track


def _broken(path: str, track: SoundTrack) -> MediaError:
    message = f"{shown(path)}: no sound could be decoded ({track.codec})"
    hint = "use --audio off to go on without, or --audio-track for another track"
    return MediaError(message, hint=hint, kind="BrokenSound")


def _edits(path: str, container: InputContainer, stream: AudioStream) -> tuple[Edit, ...]:
    if not container.format.name.startswith("mov,"):
        return ()
    edits = edits_of(boxes_of(path), stream.id, float(stream.time_base or 1))
    if any(edit.medium is not None and edit.rate != 1 for edit in edits):
        message = f"{shown(path)}: sound played faster or slower (edit list) is not supported"
        raise MediaError(message, hint="use --audio off to go on without", kind="Unsupported")
    return tuple(edits) if any(edit.medium is not None for edit in edits) else ()


def _first_shown(edits: tuple[Edit, ...]) -> float:
    begin = 0.0
    for edit in edits:
        if edit.medium is not None:
            return begin
        begin += edit.length
    return 0.0
