"""Times and pictures, by the decoder chosen for each file."""

from __future__ import annotations

import dataclasses
import gc
import os
import subprocess
import sys
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.media_files import (
    HEIGHT,
    WIDTH,
    number_of,
    picture,
    set_matrix,
    write_fields,
    write_video,
)
from PIL import Image

from malmm_cli import media
from malmm_cli.errors import MediaError
from malmm_cli.media import geometry, packets, pyav
from malmm_cli.types import Frame, MediaInfo


def read_all(path: Path, decoder: str = "auto") -> tuple[MediaInfo, list[Frame], list[str]]:
    """Probe and read every picture; also what was warned of."""
    info = media.probe(path, decoder)
    warnings = list(info.warnings)
    return info, list(media.read(info, info.seconds, on_warning=warnings.append)), warnings


def numbers(frames: list[Frame]) -> list[int]:
    return [number_of(frame.pixels) for frame in frames]


CODECS = [
    ("a.mp4", "libx264", {}),
    ("b.mp4", "libx264", {"bf": "3"}),
    ("c.mkv", "libx264", {"bf": "3", "x264-params": "open-gop=1"}),
    ("d.ts", "libx264", {"bf": "3"}),
    ("e.mov", "mjpeg", {}),
    ("f.avi", "mpeg4", {}),
    ("g.mpg", "mpeg2video", {"bf": "2"}),
    ("h.wmv", "wmv2", {}),
    ("i.webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"}),
    ("j.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    ("k.flv", "libx264", {}),
    ("l.ts", "mpeg2video", {"bf": "2"}),
    ("m.ts", "mpeg4", {}),
]


@pytest.mark.parametrize(("name", "codec", "options"), CODECS)
def test_every_picture_has_its_own_time(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_video(
        tmp_path / name, codec=codec, options={"b": "2000000", **options}, pixel_format=pixel_format
    )
    info, frames, warnings = read_all(path)
    assert numbers(frames) == list(range(50))
    assert [frame.seconds for frame in frames] == pytest.approx(np.arange(50) / 25, abs=0.0011)
    assert info.duration == pytest.approx(2.0, abs=0.0011)
    assert (info.width, info.height) == (WIDTH, HEIGHT)
    assert info.seconds[0] == 0.0
    assert warnings == []


@pytest.mark.parametrize(("name", "codec", "options"), CODECS)
def test_pictures_far_apart_are_found_by_seeking(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    options = {"b": "2000000", **options}
    path = write_video(
        tmp_path / name, 200, codec=codec, options=options, pixel_format=pixel_format
    )
    info = media.probe(path)
    for wanted in ([0, 60, 61, 130, 199], [199], [150, 151], [99, 100, 101]):
        frames = list(media.read(info, info.seconds[wanted]))
        assert numbers(frames) == wanted
        assert [frame.seconds for frame in frames] == info.seconds[wanted].tolist()


def test_decoding_waits_for_a_key_picture(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 60, codec="mpeg4", gop=20)
    with packets.open_file(str(path)) as container:
        stream = packets.stream_of(container, 0)
        container.seek(int(1.0 / stream.time_base), stream=stream, any_frame=True)
        first = next(packets.pictures_of(container, stream, from_key=True))
        assert first.time == pytest.approx(40 / 25)


def test_few_pictures_of_a_long_file_do_not_decode_it_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    decode = packets._decode
    monkeypatch.setattr(
        packets, "_decode", lambda *given: [decoded.append(1) or f for f in decode(*given)]
    )
    info = media.probe(write_video(tmp_path / "a.mp4", 250, gop=25))
    list(media.read(info, info.seconds[[0, 125, 249]]))
    assert len(decoded) < 120


def test_a_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    stamps = [0, 40, 80, 5000, 5040, 20000, 20500]
    for name in ("a.mp4", "a.mkv"):
        info, frames, _ = read_all(write_video(tmp_path / name, len(stamps), stamps=stamps))
        assert numbers(frames) == list(range(len(stamps)))
        assert info.seconds * 1000 == pytest.approx(stamps, abs=0.6)


def test_times_count_from_the_first_picture(tmp_path: Path) -> None:
    stamps = [7000 + 40 * number for number in range(20)]
    info, frames, _ = read_all(write_video(tmp_path / "a.mkv", 20, stamps=stamps))
    assert info.source_start == pytest.approx(7.0)
    assert frames[3].seconds == pytest.approx(0.12)
    assert frames[3].source_seconds == pytest.approx(7.12)
    assert info.duration == pytest.approx(0.8, abs=0.0011)


def test_pictures_cut_away_by_an_edit_list_are_none(tmp_path: Path) -> None:
    stamps = [40 * number for number in range(-15, 35)]
    info, frames, _ = read_all(write_video(tmp_path / "a.mp4", 50, stamps=stamps))
    assert numbers(frames) == list(range(15, 50))
    assert len(info.seconds) == 35


def test_a_stream_without_timestamps_is_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.h264", options={"bf": "3"}, container="h264")
    info, frames, _ = read_all(path)
    assert numbers(frames) == list(range(50))
    assert info.seconds == pytest.approx(np.arange(50) / 25)
    some = list(media.read(info, info.seconds[[3, 40]]))
    assert numbers(some) == [3, 40]


def test_h264_in_avi_is_in_the_order_of_showing(tmp_path: Path) -> None:
    info, frames, _ = read_all(write_video(tmp_path / "a.avi", options={"bf": "3"}))
    assert numbers(frames) == list(range(50))
    assert info.seconds == pytest.approx(np.arange(50) / 25)


@pytest.mark.parametrize("name", ["a.ts", "a.mp4", "a.mkv"])
def test_both_fields_of_a_picture_show_it(tmp_path: Path, name: str) -> None:
    info, frames, warnings = read_all(write_fields(tmp_path / name, 60))
    assert len(info.seconds) == 120
    assert numbers(frames) == [number // 2 for number in range(120)]
    assert info.keys.tolist() == list(range(0, 120, 20))
    assert warnings == []
    for wanted in ([100], [101], [0, 51, 99]):
        for frame, number in zip(media.read(info, info.seconds[wanted]), wanted, strict=True):
            assert np.array_equal(frame.pixels, frames[number].pixels)  # and no half of it


def test_a_missing_picture_is_not_taken_for_the_field_of_another(tmp_path: Path) -> None:
    path = write_fields(tmp_path / "a.mkv", 40)
    data = path.read_bytes()
    with av.open(str(path)) as container:
        lost = [bytes(packet) for packet in container.demux(video=0)][50:54]
    for packet in lost:
        data = data.replace(packet, bytes(len(packet)))
    path.write_bytes(data)
    info, frames, warnings = read_all(path)
    assert numbers(frames) == [number // 2 for number in range(80) if number not in range(50, 54)]
    assert len(warnings) == 1
    assert numbers(list(media.read(info, info.seconds[[47, 51, 60]]))) == [23, 30]


def test_decoding_starts_at_no_second_field(tmp_path: Path) -> None:
    info = media.probe(write_fields(tmp_path / "a.mp4", 20))
    both = np.array([0, 1, 20, 21])  # each field a key picture
    again = pyav._by_fields(dataclasses.replace(info, keys=both, targets=info.marks[both]))
    assert again.keys.tolist() == info.keys.tolist() == [0, 20]
    assert again.targets.tolist() == info.targets.tolist()


def test_a_reference_picture_that_is_never_shown_is_none(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.webm", 20, codec="libvpx", options={"cpu-used": "8"})
    with av.open(str(path)) as container:
        packet = [bytes(packet) for packet in container.demux(video=0)][7]
    hidden = bytes([packet[0] & ~0x10]) + packet[1:]  # the bit show_frame
    path.write_bytes(path.read_bytes().replace(packet, hidden))
    info, frames, warnings = read_all(path)
    assert len(info.seconds) == 19
    assert numbers(frames) == [number for number in range(20) if number != 7]
    assert warnings == []


def test_an_animation_builds_on_the_pictures_before(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.gif", 60, codec="gif", rate=10, pixel_format="rgb8")
    info = media.probe(path)
    assert numbers(list(media.read(info, info.seconds[[0, 30, 59]]))) == [0, 30, 59]


def test_animated_webp_is_read(tmp_path: Path) -> None:
    first, *others = [Image.fromarray(picture(number)) for number in range(6)]
    path = tmp_path / "a.webp"
    first.save(path, save_all=True, append_images=others, duration=[100] * 3 + [300] * 3)
    info, frames, _ = read_all(path)
    assert numbers(frames) == list(range(6))
    assert info.seconds == pytest.approx([0, 0.1, 0.2, 0.3, 0.6, 0.9])
    assert info.duration == pytest.approx(1.2)


def test_joined_streams_whose_timestamps_start_over_are_both_seen(tmp_path: Path) -> None:
    one = write_video(tmp_path / "1.ts", 20)
    two = write_video(tmp_path / "2.ts", 20, first=20, size=(48, 32))  # and of another size
    path = tmp_path / "joined.ts"
    path.write_bytes(one.read_bytes() + two.read_bytes())
    info, frames, _ = read_all(path)
    assert numbers(frames) == list(range(40))
    assert np.diff(info.seconds) == pytest.approx(1 / 25)
    assert frames[20].source_seconds == pytest.approx(frames[0].source_seconds)
    assert {frame.pixels.shape for frame in frames} == {(HEIGHT, WIDTH, 3)}


def test_one_picture_has_a_duration(tmp_path: Path) -> None:
    info, frames, _ = read_all(write_video(tmp_path / "a.mp4", 1))
    assert numbers(frames) == [0]
    assert info.duration == pytest.approx(0.04)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "p%03d.png", "noextension"])
def test_a_still_is_a_video_of_one_picture(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(picture(5)).save(path, format=None if "." in name else "PNG")
    info, frames, _ = read_all(path)
    assert numbers(frames) == [5]
    assert (info.seconds.tolist(), info.duration) == ([0.0], 0.0)


def test_sixteen_bits_are_not_clipped(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(0, 65536, 1024, dtype=np.uint16), (16, 1))
    for name in ("a.png", "p%03d.png"):  # the second by Pillow: FFmpeg takes it for a pattern
        Image.fromarray(ramp).save(tmp_path / name)
        (frame,) = read_all(tmp_path / name)[1]
        assert np.abs(frame.pixels[..., 0].astype(int) - ramp // 256).max() <= 1


@pytest.mark.parametrize("value", range(1, 9))
def test_exif_turns_a_photograph(tmp_path: Path, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    path = tmp_path / "a.jpg"
    Image.fromarray(picture(5)).save(path, exif=exif, quality=95)
    (frame,) = read_all(path)[1]
    upright = {
        1: (0, 0),
        2: (0, 1),
        3: (1, 1),
        4: (1, 0),
        5: (0, 0),
        6: (0, 1),
        7: (1, 1),
        8: (1, 0),
    }
    quarter = frame.pixels[upright[value][0] * -9 or 8, upright[value][1] * -9 or 8]
    assert quarter[0] > 200 > quarter[1]  # red lies where it belongs
    assert (frame.pixels.shape[0] > frame.pixels.shape[1]) == (value > 4)


# --- geometry

MATRICES = [
    ((1, 0, 0, 1), lambda p: p),
    ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
    ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
    ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    ((1, 0, 0, -1), lambda p: p[::-1]),
    ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
    ((0, -1, -1, 0), lambda p: np.rot90(p, 2).transpose(1, 0, 2)),
]


@pytest.mark.parametrize(("matrix", "expected"), MATRICES)
def test_display_matrices_turn_and_mirror(tmp_path: Path, matrix: tuple, expected: object) -> None:
    path = set_matrix(write_video(tmp_path / "a.mp4", 2), *matrix)
    info, frames, _ = read_all(path)
    right = expected(picture(1))
    assert frames[1].pixels.shape == right.shape == (info.height, info.width, 3)
    assert np.abs(frames[1].pixels.astype(int) - right).mean() < 12


@pytest.mark.parametrize(
    ("degrees", "matrix"), [(0, 0), (-90, 1), (270, 1), (180, 2), (-180, 2), (90, 3)]
)
def test_a_rotation_is_the_turn_of_its_matrix(degrees: int, matrix: int) -> None:
    a, b, c, d = MATRICES[matrix][0]
    assert geometry.turned_by(degrees) == geometry.turn_of(np.array([a, b, 0, c, d, 0, 0, 0, 1]))


@pytest.mark.parametrize(
    ("aspect", "matrix", "size"),
    [
        (Fraction(2), None, (192, 64)),
        (Fraction(1, 2), None, (96, 128)),
        (Fraction(2), (0, 1, -1, 0), (64, 192)),
    ],
)
def test_pixels_become_square(
    tmp_path: Path, aspect: Fraction, matrix: tuple | None, size: tuple[int, int]
) -> None:
    path = write_video(tmp_path / "a.mp4", 3, aspect=aspect)
    info, frames, _ = read_all(set_matrix(path, *matrix) if matrix else path)
    assert (info.width, info.height) == size
    assert frames[0].pixels.shape == (size[1], size[0], 3)


def test_an_absurd_pixel_aspect_is_not_believed() -> None:
    assert geometry.display_size(96, 64, 1000.0) == (96, 64)
    assert geometry.display_size(96, 64, 0.0) == (96, 64)


def test_size_resizes_as_pillow_does(tmp_path: Path) -> None:
    info, (full, *_), _ = read_all(write_video(tmp_path / "a.mp4", 3))
    for size in [(224, 224), (10, 20), (96, 64)]:
        small = next(media.read(info, info.seconds[:1], size))
        right = Image.fromarray(full.pixels).resize(size, Image.Resampling.BICUBIC)
        assert np.array_equal(small.pixels, np.asarray(right))
        assert small.pixels.flags.c_contiguous


def test_bicubic_does_not_wrap_around() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 32:] = 255
    big = geometry.resize(pixels, (200, 200))
    assert big[:, :90].max() == 0
    assert big[:, 110:].min() == 255


# --- damage


def test_a_file_cut_off_gives_what_is_there_and_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 100, muxer={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _, frames, warnings = read_all(path)
    assert 20 < len(frames) < 80
    assert numbers(frames) == list(range(len(frames)))
    (warning,) = warnings
    assert warning.startswith(f"damaged: frames end at {len(frames) / 25:.1f} s of 4.0 s")


def test_matroska_cut_off_is_known_by_its_tag(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _, frames, (warning,) = read_all(path)
    assert numbers(frames) == list(range(len(frames)))
    assert "of 4.0 s" in warning


def damage(path: Path, begin: float, end: float) -> Path:
    data = bytearray(path.read_bytes())
    span = slice(int(len(data) * begin), int(len(data) * end))
    data[span] = bytes(span.stop - span.start)
    path.write_bytes(data)
    return path


def test_a_zeroed_tail_is_left_out_with_one_warning(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 100, muxer={"movflags": "faststart"})
    _, frames, warnings = read_all(damage(path, 0.6, 1.0))
    assert 0 < len(frames) < 90
    # of the last one, half may be there
    assert [round(frame.seconds * 25) for frame in frames][:-1] == numbers(frames)[:-1]
    (warning,) = warnings
    assert warning.endswith("s of 4.0 s; using those")


def test_a_hole_is_left_out_with_one_warning(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mov", 100, codec="mjpeg", pixel_format="yuvj420p")
    _, frames, warnings = read_all(damage(path, 0.4, 0.5))
    times = [round(frame.seconds * 25) for frame in frames]
    assert 80 < len(times) < 100
    assert {0, 99} <= set(times)
    (warning,) = warnings
    assert warning.startswith("damaged between 1.")


def test_nothing_to_decode_is_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 50, muxer={"movflags": "faststart"})
    info = media.probe(path)
    damage(path, 0.3, 1.0)  # between probing and reading
    with pytest.raises(MediaError) as caught:
        list(media.read(info, info.seconds[[45]]))
    assert caught.value.kind == "NoPicture"


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_damaged_mpeg4_gives_the_same_pictures_each_time(tmp_path: Path, decoder: str) -> None:
    """Where FFmpeg decodes pictures in parallel, some reading out of ten usually differs."""
    size, options = (320, 240), {"qmin": "1"}
    path = write_video(tmp_path / "a.avi", codec="mpeg4", gop=50, size=size, options=options)
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.pos and p.size]
    data = bytearray(path.read_bytes())
    for position, length in packets[5::3]:
        data[position + length * 2 // 3] ^= 0x55
    path.write_bytes(data)
    info = media.probe(path, decoder)
    first, *others = ([f.pixels for f in media.read(info, info.seconds)] for _ in range(10))
    assert len(first) > 40
    assert all(np.array_equal(first, pixels) for pixels in others)


# --- resources


def test_a_reader_given_up_closes_its_file(tmp_path: Path) -> None:
    info = media.probe(write_video(tmp_path / "a.mp4"))
    frames = media.read(info, info.seconds)
    next(frames)
    frames.close()
    gc.collect()
    if os.path.isdir("/proc/self/fd"):
        targets = [
            os.readlink(f"/proc/self/fd/{fd}")
            for fd in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{fd}")
        ]
        assert info.path not in targets


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path: Path) -> None:
    info = media.probe(write_video(tmp_path / "a.mp4", 250, size=(320, 240)))
    tracemalloc.start()
    for _ in media.read(info, info.seconds):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 320 * 240 * 3


def test_importing_is_cheap() -> None:
    code = "import sys, malmm_cli.media; print(*sorted({'av', 'PIL', 'torch'} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == ""
