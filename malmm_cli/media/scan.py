"""What a file's packets tell about its pictures, read without decoding.

No number in a header is believed: the times are those of the packets, and what they leave open,
whether the pictures come out in that order, is found out by decoding a few.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import NamedTuple, cast

import numpy as np
from av.container import InputContainer
from av.format import Flags
from av.video.stream import VideoStream
from numpy.typing import NDArray

from malmm_cli.media.limits import MAX_PIXELS
from malmm_cli.media.packets import open_file, packets_of, pictures_of, seek, stream_of
from malmm_cli.media.timeline import (
    DAY,
    REORDERED,
    Splices,
    follow,
    near,
    sections,
    usual_gap,
)

__all__ = ["NONE", "Scan", "in_order", "longest_still", "scan"]

NONE = -(2**63)  # an unknown timestamp or position, as FFmpeg writes it

JOINED = {"mpegts", "mpeg"}  # formats in which recordings are cut and joined byte by byte
WRAPS = {"mpegts": 2**33, "mpeg": 2**33, "flv": 2**31}  # where timestamps start over
LONGEST_STILL = 10.0  # seconds that a picture stays on the screen in those
BY_SHOWING = {"matroska,webm", "nut", "ogg"}  # formats that hold no times of decoding
USUAL_ORDER = (0.1, 0.6)  # share of pictures that the next in the order of decoding comes before
SAMPLES, SAMPLE = 5, 24  # places and pictures to decode at each
WINDOW = 12  # pictures


class Stretch(NamedTuple):
    """A stretch of pictures: their share out of order, and the number of the key before it."""

    share: float
    key: int


@dataclass(frozen=True)
class Scan:
    """N packets in the order of decoding: arrays (N,), times in units of the stream.

    `stamps` are the times of showing, which continue at `splices`, `source` those of the file,
    `decoding` those of decoding, `lengths` the durations, `positions` the bytes they begin at, each
    NONE where unknown. `keys` are the pictures decoding can start at; `shown` leaves out what is
    only referred to. Edit lists are not followed yet.
    """

    stamps: NDArray[np.int64]
    source: NDArray[np.int64]
    decoding: NDArray[np.int64]
    lengths: NDArray[np.int64]
    positions: NDArray[np.int64]
    keys: NDArray[np.bool_]
    shown: NDArray[np.bool_]
    cut: bool  # the file ends within a packet
    splices: Splices | None = None
    doubtful: bool = False  # its times jump, and nothing says where
    joined: bool = False  # recordings may have been joined to it byte by byte
    left: bool = False  # it goes on with streams that only begin there
    torn: int = 0  # packets of which a part is missing

    @cached_property
    def timed(self) -> bool:
        """Whether every picture has a timestamp of its own, but for a few shown for no time."""
        if self.doubtful:
            return False
        stamps = self.stamps[self.shown]
        same = len(stamps) - len(np.unique(stamps))
        few = 0 if self.made_up else len(stamps) // 100
        return bool((stamps != NONE).all()) and same <= few

    @property
    def made_up(self) -> bool:
        """Whether the file has no times for some packets, so that FFmpeg makes them up."""
        return bool((self.positions == NONE).any())

    @property
    def end(self) -> int:
        """When the last picture leaves the screen, for all that the packets say."""
        if self.cut and not self.shown[-1]:
            return int(self.stamps[-1])  # half a picture
        return int((self.stamps + self.lengths)[self.shown].max())

    @cached_property
    def plain(self) -> bool:
        """Whether all packets are pictures, and none is shown before the key it follows."""
        behind = np.maximum.accumulate(np.where(self.keys, np.arange(len(self.keys)), 0))
        return bool(self.shown.all() and (self.stamps >= self.stamps[behind]).all())

    @cached_property
    def starts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The stamps (K,) of keys, ascending, and what to seek to for each."""
        keys = np.flatnonzero(self.keys & (self.stamps != NONE))
        keys = keys[np.argsort(self.stamps[keys], kind="stable")]
        by_byte = self.splices is not None and self.splices.by_byte
        return self.stamps[keys], (self.positions if by_byte else self.source)[keys]

    def out_of_order(self) -> float:
        """Share of the pictures whose time is before that of the picture decoded before."""
        steps = np.diff(self.stamps[self.shown])
        return float((steps < 0).mean()) if len(steps) else 0.0

    def extremes(self) -> tuple[Stretch, Stretch]:
        """The stretches with the least and the largest such share."""
        shown = np.flatnonzero(self.shown)
        back = np.diff(self.stamps[shown]) < 0
        if len(back) < WINDOW:
            whole = Stretch(float(back.mean()) if len(back) else 0.0, 0)
            return whole, whole
        share = np.convolve(back, np.ones(WINDOW) / WINDOW, "valid")
        keys = self.stamps[np.flatnonzero(self.keys)]

        def at(first: int) -> Stretch:
            before = keys[: max(int(self.keys[: shown[first] + 1].sum()), 1)][-1:]
            key = np.searchsorted(self.starts[0], before).clip(0, max(len(self.starts[0]) - 1, 0))
            return Stretch(float(share[first]), int(key[0]) if len(key) else 0)

        return at(int(share.argmin())), at(int(share.argmax()))

    def depth(self) -> int:
        """Most pictures that are decoded before one and shown after it."""
        stamps = self.stamps[self.shown]
        later = np.zeros(len(stamps), np.int64)
        for step in range(1, min(2 * REORDERED, len(stamps))):
            later[step:] += stamps[:-step] > stamps[step:]
        return int(later.max(initial=0))

    def farthest(self) -> int:
        """Most places between where a picture is decoded and where it is shown."""
        order = np.argsort(self.stamps[self.shown], kind="stable")
        return int(np.abs(order - np.arange(len(order))).max())


def scan(path: str, number: int, max_pixels: int = MAX_PIXELS) -> Scan:
    """Read all packets of the stream `number`."""
    stamps, decoding, lengths, positions = (array("q") for _ in range(4))
    keys, shown, corrupt = (array("b") for _ in range(3))
    strangers: list[None] = []
    with open_file(path, max_pixels) as container:
        stream = stream_of(container, number)
        vp8 = stream.codec_context.name == "vp8"
        for packet in packets_of(container, stream, lambda: strangers.append(None)):
            corrupt.append(packet.is_corrupt)
            stamps.append(NONE if packet.pts is None else packet.pts)
            decoding.append(NONE if packet.dts is None else packet.dts)
            lengths.append(packet.duration or 0)
            positions.append(NONE if packet.pos is None else packet.pos)
            # VP8 says in its first byte that a picture is only referred to
            hidden = packet.is_discard or (vp8 and not memoryview(packet)[0] & 0x10)
            keys.append(packet.is_keyframe)
            shown.append(not hidden)
        cut = bool(corrupt and corrupt[-1])
        found = Scan(
            stamps=np.array(stamps, np.int64),
            source=np.array(stamps, np.int64),
            decoding=np.array(decoding, np.int64),
            lengths=np.array(lengths, np.int64),
            positions=np.array(positions, np.int64),
            keys=np.array(keys, np.bool_),
            shown=np.array(shown, np.bool_),
            cut=cut,
            torn=_torn(corrupt, keys) if any(corrupt) else 0,
            joined=container.format.name in JOINED,
            left=bool(strangers) and _goes_on(np.array(positions, np.int64), container.size),
        )
        if cut and found.shown.sum() > 1:
            found.shown[-1] = False
        return _continued(found, container, stream)


def _torn(corrupt: Sequence[int], keys: Sequence[int]) -> int:
    """Count the packets of which a part is missing; the last of all is another matter.

    Where whole recordings were joined, one shortly before a key picture looks so too.
    """
    whole, first = np.array(corrupt, np.bool_), np.array(keys, np.bool_)
    joint = np.append(first[1:], True) | np.append(first[2:], [True, True])[: len(first)]
    return int((whole & ~joint).sum())


def _goes_on(positions: NDArray[np.int64], size: int) -> bool:
    """Say whether more of the file follows the last packet than ever lies between two."""
    steps = np.diff(positions[positions != NONE])
    return len(steps) > 0 and size - positions.max() > 2 * steps.max()


def longest_still(container: str) -> float:
    """Return for how many seconds a picture may stay on the screen in files of this format."""
    return LONGEST_STILL if container in JOINED else DAY


def _continued(found: Scan, container: InputContainer, stream: VideoStream) -> Scan:
    """Return the scan with times that continue where those of the file jump.

    As players do: at a step back, which nothing but a joint makes, and at a step forward that is
    longer than a picture can stay.
    """
    unit = float(stream.time_base or 1)
    name = container.format.name
    times = found.stamps if name in BY_SHOWING else found.decoding
    places = np.flatnonzero((times != NONE) & (found.stamps != NONE))
    if len(places) < 2:
        return found
    wrap = WRAPS.get(name, 0)
    stamps = found.stamps.copy()
    if wrap:
        stamps[places] = near(stamps[places], found.decoding[places], wrap)
    gap = usual_gap(stamps[places])
    rough = name in BY_SHOWING or found.made_up
    back = max(1 / unit, REORDERED * float(gap)) if rough else 0
    starts = sections(times[places], back, longest_still(name) / unit)
    if len(starts) == 1 and (stamps == found.stamps).all():
        return found
    positions = found.positions[places[starts]]
    if found.made_up or len(starts) > 1 + len(places) / 20 or (np.diff(positions) <= 0).any():
        return replace(found, doubtful=True)
    steps = times[places[starts[1:]]] - times[places[starts[1:] - 1]]
    wraps = [0, *(_wrapped(int(step), wrap, LONGEST_STILL / unit) for step in steps)]
    shifts = np.array(follow(np.split(stamps[places], starts[1:]), gap, wraps), np.int64)
    section = np.searchsorted(places[starts], np.arange(len(times)), "right").clip(1) - 1
    by_byte = not container.format.flags & cast("int", Flags.no_byte_seek.value)
    return replace(
        found,
        stamps=np.where(stamps == NONE, NONE, stamps + shifts[section]),
        splices=Splices(positions, shifts, by_byte, wrap),
        # ASF cannot be sought then: bytes lie within pictures, and a time is looked for for ever
        keys=found.keys & (name != "asf"),
    )


def _wrapped(step: int, wrap: int, longest: float) -> int:
    """Return what to add to times that only started over; 0 if they jump for another reason."""
    by = -wrap * round(step / wrap) if wrap else 0
    return by if abs(step + by) < longest else 0


def in_order(container: InputContainer, stream: VideoStream, found: Scan) -> bool:
    """Say whether pictures come out of the decoder in the order of their timestamps.

    Files exist that hold the times of decoding alone. Where the codec decodes pictures in another
    order than that of showing and the times do not look so, pictures from several places of the
    file are decoded for the answer; likewise where FFmpeg makes up times, which then must be the
    same after a seek. The container is left anywhere.
    """
    avi = container.format.name == "avi"
    reordering = stream.codec_context.has_b_frames and not found.keys.all()
    if reordering and avi and stream.codec_context.name in {"h264", "hevc"}:
        return False  # AVI has times of decoding alone, and FFmpeg guesses wrong for these
    if found.farthest() > REORDERED or found.depth() > stream.codec_context.has_b_frames + 1:
        return False
    least, most = USUAL_ORDER if reordering else (0, 0)
    usual = least <= found.out_of_order() <= most and not (avi and reordering)
    lowest, highest = found.extremes()
    if usual and not found.made_up and least <= lowest.share and highest.share <= most:
        return True
    marks, targets = np.unique(found.stamps[found.shown]), found.starts[1]
    if not len(targets):
        return False
    keys = {lowest.key, highest.key}
    if not usual or found.made_up:
        keys |= set(np.linspace(0, len(targets) - 1, SAMPLES).astype(int).tolist())
    for key in sorted(keys):
        seek(container, stream, int(targets[key]), found.splices)
        frames = pictures_of(container, stream, found.splices, from_key=True)
        stamps = [frame.pts for frame in islice(frames, SAMPLE)]
        known = [stamp for stamp in stamps if stamp is not None]
        if len(known) < len(stamps) or known != sorted(known):
            return False
        if found.made_up and (np.diff(np.searchsorted(marks, known)) != 1).any():
            return False
    return True
