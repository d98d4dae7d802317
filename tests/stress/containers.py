"""The same packets in every container that takes them, with times of many wrong kinds.

The pictures that are shown must be those that come out of the decoder, each once and in that order,
whether read one after the other or sought, and the times ascend and last as long as the pictures.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from helpers.media_files import number_of, write_video

from malmm_cli import media
from malmm_cli.errors import MalmmError

COUNT, RATE = 150, 25
CODECS: dict[str, dict[str, object]] = {
    "h264": {"codec": "libx264", "options": {"bf": "3", "preset": "veryfast"}},
    "h264 without reordering": {"codec": "libx264"},
    "hevc": {
        "codec": "libx265",
        "options": {"preset": "ultrafast", "x265-params": "bframes=3:log-level=none"},
    },
    "mpeg2": {"codec": "mpeg2video", "options": {"bf": "2", "b": "2000000"}},
    "mpeg4": {"codec": "mpeg4", "options": {"bf": "2", "b": "2000000"}},
    "vp9": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "av1": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "lp=1"}},
}
CONTAINERS = (
    "mp4",
    "mov",
    "mkv",
    "webm",
    "avi",
    "ts",
    "mpg",
    "flv",
    "nut",
    "mxf",
    "asf",
    "3gp",
    "ogv",
)


@dataclass
class Times:
    """Of one packet, in pictures; None where it has none."""

    pts: float | None
    dts: float | None


Change = Callable[[list[Times], random.Random], None]


def _as_they_are(times: list[Times], chance: random.Random) -> None:
    pass


def _decoding(times: list[Times], chance: random.Random) -> None:
    for each in times:
        each.pts = each.dts


def _decoding_in_part(times: list[Times], chance: random.Random) -> None:
    _decoding(times[len(times) // 2 :], chance)


def _missing(times: list[Times], chance: random.Random) -> None:
    for each in times[1:]:
        if chance.random() < 0.3:
            each.pts = None


def _no_times_of_showing(times: list[Times], chance: random.Random) -> None:
    for each in times:
        each.pts = None


def _move(times: list[Times], by: float) -> None:
    for each in times:
        each.pts, each.dts = each.pts + by, each.dts + by


def _late(times: list[Times], chance: random.Random) -> None:
    _move(times, chance.choice([100, 25_000, 2_000_000]))


def _stepping_back(times: list[Times], chance: random.Random) -> None:
    for first, second in itertools.pairwise(times):
        if chance.random() < 0.05:
            first.pts, second.pts = second.pts, first.pts


def _backwards(times: list[Times], chance: random.Random) -> None:
    for each in times:
        each.pts = len(times) - each.pts


def _doubled(times: list[Times], chance: random.Random) -> None:
    for each in times:
        each.pts = each.pts // 2 * 2


def _epoch(times: list[Times], chance: random.Random) -> None:
    _move(times[1:], RATE * 80_000_000)


CHANGES: dict[str, Change] = {
    "times as they are": _as_they_are,
    "times of decoding": _decoding,
    "times of decoding from half-way": _decoding_in_part,
    "some times missing": _missing,
    "no times of showing": _no_times_of_showing,
    "a late start": _late,
    "steps back": _stepping_back,
    "backwards": _backwards,
    "doubled": _doubled,
    "epoch after the first": _epoch,
}


# containers that cannot hold such times, or say a wrong length with them
UNFIT = {
    "epoch after the first": ("mp4", "mov", "3gp"),
    "backwards": ("asf", "mpg"),
    "a late start": ("avi", "asf"),
}


def muxed(source: Path, target: Path, change: str, seed: int) -> bool:
    """Say whether the container took the packets; some muxers abort instead of saying no."""
    child = multiprocessing.get_context("fork").Process(
        target=_mux, args=(source, target, CHANGES[change], random.Random(seed))
    )
    child.start()
    child.join()
    return child.exitcode == 0 and target.exists() and target.stat().st_size > 0


def _mux(source: Path, target: Path, change: Change, chance: random.Random) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        mux(source, target, change, chance)
    except (av.FFmpegError, ValueError, OverflowError):
        os._exit(1)


def mux(source: Path, target: Path, change: Change, chance: random.Random) -> None:
    """Write the packets of `source` with changed times."""
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        stream = read.streams.video[0]
        copy = written.add_stream_from_template(stream)
        packets = [packet for packet in read.demux(stream) if packet.size]
        unit = float(stream.time_base) * RATE
        start = min(packet.pts for packet in packets)
        times = [Times((p.pts - start) * unit, (p.dts - start) * unit) for p in packets]
        change(times, chance)
        # muxers take no picture that would be shown before it is decoded
        early = max((t.dts - t.pts for t in times if None not in (t.pts, t.dts)), default=0)
        for each in times if early > 0 else ():
            each.dts -= early
        for packet, each in zip(packets, times, strict=True):
            packet.time_base = Fraction(1, 100 * RATE)
            packet.pts = None if each.pts is None else round(each.pts * 100)
            packet.dts = None if each.dts is None else round(each.dts * 100)
            packet.duration = 100
            packet.stream = copy
            written.mux(packet)


def decoded(path: Path) -> list[int]:
    """Return the numbers of all pictures in the order in which they come out of the decoder."""
    try:
        with av.open(str(path), options={"ignore_editlist": "1"}) as container:
            frames = container.decode(container.streams.video[0])
            return [number_of(frame.to_ndarray(format="rgb24")) for frame in frames]
    except (av.FFmpegError, IndexError):
        return []


def judge(
    path: Path,
    chance: random.Random,
    decoder: str = "auto",
    *,
    ordered: bool = True,
    truth: list[int] | None = None,
) -> str:
    """Return what is wrong with how a file is read; nothing if nothing is.

    `truth` is what comes out of the decoder if it is not given. Where times are not `ordered`, they
    only have to show every picture.
    """
    truth = truth or decoded(path)
    if len(truth) < COUNT - 10 or len(set(truth)) < len(truth):
        return ""  # the container did not keep the packets whole
    try:
        info = media.probe(path, decoder)
        warnings = list(info.warnings)
        whole = list(media.read(info, info.seconds, on_warning=warnings.append))
    except MalmmError as error:
        return f"{type(error).__name__}: {error}"
    if warnings:
        return f"warnings: {warnings}"
    got = [number_of(frame.pixels) for frame in whole]
    if got != truth if ordered else sorted(got) != sorted(truth):
        return f"{len(got)} of {len(truth)} pictures, or in another order: {got}"
    if (np.diff(info.seconds) <= 0).any() or abs(info.duration - len(truth) / RATE) > 0.5:
        return f"lasts {info.duration:.2f} s"
    for _ in range(4):
        few = sorted(chance.sample(range(len(truth)), chance.choice([1, 3, 9])))
        got = [number_of(frame.pixels) for frame in media.read(info, info.seconds[few])]
        sought = [number_of(whole[index].pixels) for index in few]
        # behind a seek, a picture whose time is too late by a few may be missed
        if got != sought if ordered else not set(got) <= set(sought):
            return f"sought {few}, found {got}"
    return ""


JOINTS = {
    "back": (600, 0, 604),
    "back a little": (100, 101.5, 102.9),
    "forward": (0, 102, 300),
    "the same times again": (50, 50, 50),
    "over the end of the clock": (95440, 95442, 95444),
    "hours": (3600, 80000, 3601),
}


def joined(folder: Path, codec: str, kind: str, starts: Sequence[float]) -> tuple[Path, int]:
    """Join pieces that begin at these seconds, byte by byte; also the number of their pictures."""
    path, count = Path(folder, f"joined.{kind}"), COUNT // len(starts)
    data = b""
    for number, start in enumerate(starts):
        made: dict[str, object] = {"gop": 10, "first": number * count, **CODECS[codec]}
        source = write_video(Path(folder, "piece.mp4"), count, rate=RATE, **made)  # type: ignore[arg-type]
        piece = Path(folder, f"piece.{kind}")
        mux(source, piece, lambda times, _, by=start * RATE: _move(times, by), random.Random(0))
        data += piece.read_bytes()
    path.write_bytes(data)
    return path, count * len(starts)


def joints(codecs: list[str], seed: int) -> Counter[str]:
    """Judge recordings that were joined: all pictures are shown, one after the other."""
    chance = random.Random(seed)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        for codec, kind in itertools.product(codecs, ("ts", "mpg")):
            for name, starts in JOINTS.items():
                if kind == "mpg" and (codec != "mpeg2" or name == "back a little"):
                    continue
                path, count = joined(Path(place), codec, kind, starts)
                wrong = judge(path, chance, "auto", truth=list(range(count)))
                found["wrong" if wrong else "right"] += 1
                if wrong:
                    print(f"{codec} in {kind}, joined, {name}: {wrong}", flush=True)
    return found


def run(codecs: list[str], changes: list[str], seed: int, decoder: str = "auto") -> Counter[str]:
    """Judge every combination."""
    chance = random.Random(seed)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        for codec in codecs:
            made: dict[str, object] = {"gop": chance.choice([10, 25, 50]), **CODECS[codec]}
            source = write_video(Path(place, "source.mp4"), COUNT, rate=RATE, **made)  # type: ignore[arg-type]
            for change in changes:
                for kind in CONTAINERS:
                    if kind in UNFIT.get(change, ()):
                        continue
                    path = Path(place, f"a.{kind}")
                    path.unlink(missing_ok=True)
                    if not muxed(source, path, change, chance.randrange(1000)):
                        found["not taken"] += 1
                        continue
                    wrong = judge(path, chance, decoder, ordered=change != "steps back")
                    found["wrong" if wrong else "right"] += 1
                    if wrong:
                        print(f"{codec} in {kind}, {change}: {wrong}", flush=True)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--codec", action="append")
    parser.add_argument("--change", action="append")
    parser.add_argument("--decoder", default="auto")
    given = parser.parse_args()
    found = run(
        given.codec or list(CODECS), given.change or list(CHANGES), given.seed, given.decoder
    )
    assert not found["wrong"]
