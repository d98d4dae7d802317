"""Times of showing from timestamps that say it badly: of decoding, missing, doubled, jumping."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.media_files import number_of, set_edits, write_sound, write_video
from stress import containers

from malmm_cli import media
from malmm_cli.media import pyav
from malmm_cli.media.timeline import clock, follow, sections

NAN = float("nan")


def test_known_times_count_from_the_first() -> None:
    seconds, gap = clock(np.array([5.0, 5.04, 5.08]), 50)
    assert seconds == pytest.approx([0.0, 0.04, 0.08])
    assert gap == pytest.approx(0.04)


def test_without_any_times_the_rate_counts() -> None:
    seconds, gap = clock(np.array([NAN] * 3), 50)
    assert seconds.tolist() == [0.0, 0.02, 0.04]
    assert gap == 0.02


def test_times_of_decoding_are_sorted() -> None:
    seconds, _ = clock(np.array([0.0, 0.08, 0.12, 0.04, 0.2, 0.16]), 25)
    assert seconds == pytest.approx(np.arange(6) / 25)


def test_missing_and_doubled_times_are_spread_between_their_neighbours() -> None:
    assert clock(np.array([NAN, 1.0, NAN, NAN, 4.0, NAN]), 25)[0] == pytest.approx(
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    )
    assert clock(np.array([0.0, 0.0, 2.0, 2.0]), 25)[0] == pytest.approx([0.0, 1.0, 2.0, 4.0])


@pytest.mark.parametrize("jump", [-600.0, 90_000.0])
def test_times_continue_where_they_jump(jump: float) -> None:
    steady = np.arange(10) / 25
    seconds, _ = clock(np.concatenate([700 + steady, 700.4 + jump + steady]), 25)
    assert seconds == pytest.approx(np.arange(20) / 25)


@pytest.mark.parametrize("back", [0.3, 0.62, 0.99])
def test_a_small_step_back_is_a_joint_where_pictures_were_shown_before(back: float) -> None:
    times = np.arange(75) / 25
    shown = np.concatenate([times[:40], times[40:] - back])
    assert clock(shown, 25)[0] == pytest.approx(times)
    swapped = times.copy()
    swapped[[10, 13]] = swapped[[13, 10]]
    assert clock(swapped, 25)[0] == pytest.approx(times)


def test_a_picture_may_stay_for_hours_but_not_for_days() -> None:
    assert clock(np.array([0.0, 0.04, 7200.0]), 25)[0].tolist() == [0.0, 0.04, 7200.0]
    assert clock(np.array([0.0, 0.04, 0.08, 1.7e9, 1.7e9 + 0.04]), 25)[0] == pytest.approx(
        np.arange(5) / 25, abs=1e-6
    )
    assert clock(np.array([0.0, 0.04, 0.08, 12.0]), 25, longest=10.0)[0][-1] == pytest.approx(0.12)


def test_slow_recordings_do_not_jump_at_every_picture() -> None:
    assert sections(np.arange(5) * 60, 0, 10).tolist() == [0]
    assert sections(np.array([0, 1, 2, 50, 51, 3]), 0, 10).tolist() == [0, 3, 5]
    assert follow([np.array([10, 12, 11]), np.array([3, 4])], 1) == [0, 10]


def changed(tmp_path: Path, name: str, codec: str, change: str) -> Path:
    """The pictures 0 to 149 with changed times in a container that takes them."""
    made = containers.CODECS[codec]
    source = write_video(tmp_path / "source.mp4", containers.COUNT, gop=25, **made)  # type: ignore[arg-type]
    path = tmp_path / name
    containers.mux(source, path, containers.CHANGES[change], random.Random(0))
    return path


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "h264"),
        ("a.mkv", "h264"),
        ("a.mxf", "h264"),
        ("a.ts", "mpeg2"),
        ("a.mkv", "mpeg4"),
    ],
)
def test_times_of_decoding_lose_no_picture(tmp_path: Path, name: str, codec: str) -> None:
    path = changed(tmp_path, name, codec, "times of decoding")
    assert containers.judge(path, random.Random(0)) == ""
    assert not media.probe(path).counted, "it can still be sought"  # type: ignore[attr-defined]


@pytest.mark.parametrize("change", ["steps back", "backwards", "doubled", "some times missing"])
def test_wrong_times_lose_no_picture(tmp_path: Path, change: str) -> None:
    path = changed(tmp_path, "a.mp4" if change != "some times missing" else "a.ts", "h264", change)
    assert containers.judge(path, random.Random(0), ordered=change != "steps back") == ""


@pytest.mark.parametrize("name", ["a.ts", "a.mkv", "a.asf"])
def test_a_first_picture_at_0_and_the_rest_at_epoch_times(tmp_path: Path, name: str) -> None:
    path = changed(tmp_path, name, "h264", "epoch after the first")
    assert containers.judge(path, random.Random(0)) == ""


def test_an_mp4_without_its_times_of_showing_is_whole(tmp_path: Path) -> None:
    path = changed(tmp_path, "a.mp4", "h264", "times as they are")
    path.write_bytes(path.read_bytes().replace(b"ctts", b"free"))
    assert containers.judge(path, random.Random(0)) == ""


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.nut"])
def test_times_of_decoding_in_a_part_of_a_file_are_found(tmp_path: Path, name: str) -> None:
    path = changed(tmp_path, name, "h264", "times of decoding from half-way")
    assert containers.judge(path, random.Random(0)) == ""


@pytest.mark.parametrize(("name", "wraps_at"), [("a.ts", 2**33 / 90_000), ("a.flv", 2**31 / 1000)])
def test_a_clock_may_start_over_between_pictures_that_refer_to_each_other(
    tmp_path: Path, name: str, wraps_at: float
) -> None:
    source = write_video(tmp_path / "source.mp4", 50, gop=25, options={"bf": "3"})
    for early in range(20, 28):
        begin = wraps_at * 25 - early
        path = tmp_path / name
        containers.mux(
            source, path, lambda times, _, by=begin: containers._move(times, by), random.Random(0)
        )
        info = media.probe(path)
        frames = list(media.read(info, info.seconds))
        assert [number_of(frame.pixels) for frame in frames] == list(range(50))
        assert info.duration == pytest.approx(2, abs=0.05)


def test_a_packet_with_a_hole_is_told_of(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", 50, gop=25, size=(640, 480), options={"crf": "0"})
    data = path.read_bytes()
    assert media.probe(path).warnings == ()
    with av.open(str(path)) as container:
        begin = [packet.pos for packet in container.demux(video=0) if packet.size][12]
    hole = begin + 4 * 188
    path.write_bytes(data[:hole] + data[hole + 188 :])
    (warning,) = media.probe(path).warnings
    assert "1 of 50 packets are incomplete" in warning


@pytest.mark.parametrize("name", ["packed.avi", "steps.mkv"])
def test_files_of_xvid_are_whole(tmp_path: Path, name: str) -> None:
    """AVI then holds two pictures in one packet, and Matroska times that step back."""
    program = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    source = write_video(tmp_path / "source.mp4", 150, codec="mpeg4", options={"qmin": "1"})
    path = tmp_path / name
    command = [program, "-loglevel", "error", "-i", source, "-c:v", "libxvid", "-q:v", "1"]
    subprocess.run([*command, "-bf", "2", "-g", "9", path], check=True)
    info = media.probe(path)
    warnings = list(info.warnings)
    frames = list(media.read(info, info.seconds, on_warning=warnings.append))
    assert warnings == []
    assert [number_of(frame.pixels) for frame in frames] == containers.decoded(path)
    assert len(frames) >= 147
    assert info.duration == pytest.approx(len(frames) / 25, abs=0.2)


@pytest.mark.parametrize("joint", containers.JOINTS)
@pytest.mark.parametrize(("codec", "kind"), [("h264", "ts"), ("mpeg2", "ts"), ("mpeg2", "mpg")])
def test_joined_recordings_are_one_after_the_other(
    tmp_path: Path, codec: str, kind: str, joint: str
) -> None:
    if (kind, joint) == ("mpg", "back a little"):
        pytest.skip("MPEG-PS has no time for each picture, which could be too early")
    path, count = containers.joined(tmp_path, codec, kind, containers.JOINTS[joint])
    assert containers.judge(path, random.Random(0), truth=list(range(count))) == ""


def test_joined_recordings_may_number_their_streams_differently(tmp_path: Path) -> None:
    pieces = []
    for number, identity in enumerate(("256", "512")):  # with the same table
        path = write_video(
            tmp_path / "piece.ts",
            75,
            first=75 * number,
            muxer={"mpegts_start_pid": identity},
        )
        pieces.append(path.read_bytes())
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(pieces))
    info = media.probe(path)
    frames = list(media.read(info, info.seconds))
    # the last picture of the first piece comes too late to be decoded
    assert [number_of(frame.pixels) for frame in frames] == [*range(74), *range(75, 150)]


def test_a_stream_that_begins_in_mid_file_is_passed_over(tmp_path: Path) -> None:
    first = write_video(tmp_path / "a.ts", 50)
    second = write_video(tmp_path / "b.ts", 50, first=50, muxer={"mpegts_pmt_start_pid": "5000"})
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    info = media.probe(path)
    numbers = [number_of(frame.pixels) for frame in media.read(info, info.seconds)]
    assert numbers[:50] == list(range(50))
    assert len(numbers) == 100 or "another stream" in info.warnings[0]


def test_a_stream_in_which_something_else_begins_is_told_of(tmp_path: Path) -> None:
    first = write_video(tmp_path / "a.ts", 50, options={"bf": "3"})
    sound = write_sound(tmp_path / "b.ts", "mp2", {"mpegts_start_pid": "256"})
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() + sound.read_bytes())
    info = media.probe(path)
    warnings = list(info.warnings)
    numbers = [number_of(f.pixels) for f in media.read(info, info.seconds, None, warnings.append)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 45  # the last come out of the decoder behind what is none
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("edits", "shown", "duration"),
    [
        ([(1, 1, 1), (1, 3, 1)], [*range(25, 50), *range(75, 100)], 2),
        ([(1, 3, 1), (1, 1, 1)], [*range(75, 100), *range(25, 50)], 2),
        ([(1, 1, 1), (3, None, 1), (1, 3, 1)], [*range(25, 50), *range(75, 100)], 5),
        ([(1, None, 1), (1, 1, 1), (1, None, 1), (1, 2, 1)], range(25, 75), 3),
        ([(1, 1, 1), (2, 3, 0), (1, 4, 1)], [*range(25, 50), 75, *range(100, 125)], 4),
        ([(1, 1, 1), (2, None, 1)], range(25, 50), 3),
        ([(1, 0.4, 1), (1, 3.4, 1)], [*range(10, 35), *range(85, 110)], 2),
        ([(0.6, 0.4, 1), (2, None, 1), (1, 3.4, 1)], [*range(10, 25), *range(85, 110)], 3.6),
        ([(1, 1.2, 1), (1, 1.2, 1), (0.4, 0.8, 1)], [*range(30, 55)] * 2 + [*range(20, 30)], 2.4),
        ([(1, 5.2, 1), (0.4, 0.2, 1)], [*range(130, 150), *range(5, 15)], 1.4),
        ([(1, 1, 2)], range(25, 75), 1),
        ([(0, 4.2, 1)], range(105, 150), 1.8),
        ([(1, 70, 1)], range(150), 6),
    ],
    ids=str,
)
@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_only_what_an_edit_list_shows_is_shown(
    tmp_path: Path,
    edits: list[tuple[float, float | None, int]],
    shown: list[int],
    duration: float,
    decoder: str,
) -> None:
    chance = random.Random(0)
    # with pictures that refer to later ones, times of showing begin behind those of decoding
    for reordered, lead in (("0", 0), ("3", 0.08)):
        path = write_video(tmp_path / "a.mp4", 150, gop=25, options={"bf": reordered})
        moved = [(n, None if at is None else at + lead, rate) for n, at, rate in edits]
        info = media.probe(set_edits(path, *moved), decoder)
        warnings = list(info.warnings)
        frames = list(media.read(info, info.seconds, on_warning=warnings.append))
        assert [number_of(frame.pixels) for frame in frames] == list(shown)
        assert info.duration == pytest.approx(duration, abs=0.002)
        assert warnings == []
        few = sorted(chance.sample(range(len(frames)), 4))
        sought = media.read(info, info.seconds[few])
        assert [number_of(frame.pixels) for frame in sought] == [shown[index] for index in few]


def test_a_picture_that_stays_for_long_is_on_the_screen_when_its_part_begins(
    tmp_path: Path,
) -> None:
    stamps = [*range(0, 1000, 40), *range(9000, 10000, 40)]
    path = write_video(tmp_path / "a.mp4", 50, stamps=stamps)
    info = media.probe(set_edits(path, (1, 5, 1), (2, 8.5, 1)))
    numbers = [number_of(frame.pixels) for frame in media.read(info, info.seconds)]
    assert numbers == [24, 24, *range(25, 50)]
    assert info.seconds[:3].tolist() == pytest.approx([0, 1, 1.5])
    assert info.duration == pytest.approx(2.5)


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg2", "mpeg4"])
def test_pictures_that_nobody_asks_for_are_not_decoded_and_the_others_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    path = changed(tmp_path, "a.mp4", codec, "times as they are")
    info = media.probe(path)
    for step in (1, 7, 25):
        wanted = info.seconds[::step]
        given = [frame.pixels for frame in media.read(info, wanted)]
        with monkeypatch.context() as patch:
            patch.setattr(pyav, "SPARING", set())
            whole = [frame.pixels for frame in media.read(info, wanted)]
        assert np.array_equal(given, whole)
