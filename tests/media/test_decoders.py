"""The other decoders: an ffmpeg program, and decord; and that all of them agree."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.media_files import number_of, set_matrix, write_fields, write_sound, write_video

from malmm_cli import media
from malmm_cli.errors import MediaError, UsageError
from malmm_cli.media import ffmpeg, pyav
from malmm_cli.types import Frame

needs_decord = pytest.mark.skipif(
    find_spec("decord") is None, reason="decord has no wheel for this machine"
)
OTHERS = ["ffmpeg", pytest.param("decord", marks=needs_decord)]


@pytest.fixture(autouse=True)
def _own_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the program of the extra, which is the same everywhere."""
    monkeypatch.setattr(shutil, "which", lambda name: None)


def read(path: Path, decoder: str, wanted: list[int], size: tuple | None = None) -> list[Frame]:
    info = media.probe(path, decoder)
    assert info.decoder == decoder
    return list(media.read(info, info.seconds[wanted], size))


def numbers(frames: list[Frame]) -> list[int]:
    return [number_of(frame.pixels) for frame in frames]


@pytest.mark.parametrize("decoder", OTHERS)
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {}),
        ("b.mp4", "libx264", {"bf": "3"}),
        ("c.mkv", "libx264", {"bf": "3"}),
        ("d.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
        ("a:b.mp4", "mpeg4", {"b": "2000000"}),
    ],
)
def test_decoders_agree(
    tmp_path: Path, decoder: str, name: str, codec: str, options: dict[str, str]
) -> None:
    plain = tmp_path / f"plain{Path(name).suffix}"
    path = write_video(plain, 200, codec=codec, options=options).rename(tmp_path / name)
    wanted = [0, 3, 60, 61, 150, 199]
    for size in (None, (50, 70)):
        ours = read(path, "pyav", wanted, size)
        theirs = read(path, decoder, wanted, size)
        assert numbers(theirs) == wanted
        for one, other in zip(ours, theirs, strict=True):
            assert (one.seconds, one.source_seconds) == (other.seconds, other.source_seconds)
            assert one.pixels.shape == other.pixels.shape
            assert np.abs(one.pixels.astype(int) - other.pixels).mean() < 2


@pytest.mark.parametrize("decoder", OTHERS)
def test_decoders_agree_on_geometry(tmp_path: Path, decoder: str) -> None:
    path = write_video(tmp_path / "a.mp4", 5, aspect=Fraction(2))
    for matrix in [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)]:
        set_matrix(path, *matrix)
        (ours,), (theirs,) = read(path, "pyav", [2]), read(path, decoder, [2])
        assert ours.pixels.shape == theirs.pixels.shape
        assert np.abs(ours.pixels.astype(int) - theirs.pixels).mean() < 4


# --- the ffmpeg program


def test_the_program_mirrors(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 5)
    for matrix in [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)]:
        set_matrix(path, *matrix)
        (ours,), (theirs,) = read(path, "pyav", [2]), read(path, "ffmpeg", [2])
        assert np.abs(ours.pixels.astype(int) - theirs.pixels).mean() < 2


def test_the_program_counts_what_has_no_timestamps(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.h264", 30, options={"bf": "2"}, container="h264")
    assert numbers(read(path, "ffmpeg", [0, 7, 29])) == [0, 7, 29]
    info = media.probe(path, "ffmpeg")
    assert info.seconds == pytest.approx(np.arange(30) / 25)


def test_the_program_shows_fields_as_one_picture(tmp_path: Path) -> None:
    path = write_fields(tmp_path / "a.ts", 20)
    assert numbers(read(path, "ffmpeg", list(range(20)))) == list(range(20))


def write_pieces(folder: Path, *sizes: tuple[int, int], starts: Sequence[int] = ()) -> Path:
    """Join MPEG-TS files of 30 pictures byte by byte; `starts` are their first times in ms."""
    path = folder / "joined.ts"
    with path.open("wb") as file:
        for number, size in enumerate(sizes):
            start = starts[number] if starts else 1200 * number
            times = [start + 40 * place for place in range(30)]
            piece = write_video(
                folder / "piece.ts",
                30,
                size=size,
                stamps=times,
                first=30 * number,
                options={"bf": "2"},
            )
            file.write(piece.read_bytes())
    return path


@pytest.mark.parametrize("program", ["of the extra", "of the system"])
@pytest.mark.parametrize("starts", [[0, 1200, 2400], [0, 0, 0]])
def test_the_program_keeps_count_where_the_size_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, starts: list[int]
) -> None:
    if program == "of the system":
        monkeypatch.undo()
    path = write_pieces(tmp_path, (160, 96), (320, 192), (96, 96), starts=starts)
    for wanted in (list(range(90)), [3, 29, 30, 59, 60, 88], [45]):
        ours, theirs = read(path, "pyav", wanted), read(path, "ffmpeg", wanted)
        assert numbers(theirs) == wanted
        for one, other in zip(ours, theirs, strict=True):
            assert one.seconds == pytest.approx(other.seconds, abs=1e-3)
            assert one.pixels.shape == other.pixels.shape
            assert np.abs(one.pixels.astype(int) - other.pixels).mean() < 4


@pytest.mark.parametrize("starts", [[0, 500, 1000], [0, 0, 0], [0, 1180, 2300], [9000, 8500, 90]])
def test_the_program_shows_joined_pieces_one_after_the_other(
    tmp_path: Path, starts: list[int]
) -> None:
    path = write_pieces(tmp_path, *[(96, 64)] * 3, starts=starts)
    ours, theirs = (media.probe(path, decoder) for decoder in ("pyav", "ffmpeg"))
    assert theirs.seconds == pytest.approx(ours.seconds, abs=1e-3)
    assert theirs.duration == pytest.approx(ours.duration, abs=1e-3)
    assert numbers(list(media.read(theirs, theirs.seconds))) == list(range(90))


@pytest.mark.parametrize("name", ["a.ts", "a.mpg"])
def test_the_program_decodes_from_a_key_picture_after_a_seek(tmp_path: Path, name: str) -> None:
    path = write_video(
        tmp_path / name, 200, codec="mpeg4", gop=25, options={"bf": "2", "b": "2000000"}
    )
    for wanted in range(101, 200, 8):
        assert numbers(read(path, "ffmpeg", [wanted])) == [wanted]


@pytest.mark.parametrize("name", ["a.avi", "a.asf"])
def test_the_program_counts_where_its_clock_differs(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, 150, gop=25)
    for wanted in (list(range(150)), [0, 70], [140, 149]):
        assert numbers(read(path, "ffmpeg", wanted)) == wanted


def test_many_pictures_take_several_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg, "AT_ONCE", 40)
    path = write_video(tmp_path / "a.ts", 250, options={"bf": "2"})
    assert numbers(read(path, "ffmpeg", list(range(0, 250, 2)))) == list(range(0, 250, 2))


def test_a_seek_that_lands_too_late_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    select, starts = ffmpeg._select, []

    def late(track: object, indices: list[int], start: float | None) -> object:
        starts.append(start)
        return select(track, indices, start if start is None else start + 2)

    monkeypatch.setattr(ffmpeg, "_select", late)
    path = write_video(tmp_path / "a.mp4", 250)
    assert numbers(read(path, "ffmpeg", [150, 240])) == [150, 240]
    assert starts == [pytest.approx(5.6), None]


def test_what_pyav_does_not_open_is_tried_with_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", 20)

    def fail(path: str, max_pixels: int) -> None:
        raise MediaError(f"{path}: not a video", kind="NotAVideo")

    monkeypatch.setattr(pyav, "probe", fail)
    info = media.probe(path)
    assert info.decoder == "ffmpeg"
    assert info.duration == pytest.approx(0.8)
    assert numbers(list(media.read(info, info.seconds[[0, 19]]))) == [0, 19]


def test_the_program_does_not_draw_text(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("only some text\n" * 100)
    for decoder in ("auto", "ffmpeg"):
        with pytest.raises(MediaError) as caught:
            media.probe(path, decoder)
        assert caught.value.kind == "NotAVideo"


def test_text_is_not_even_given_to_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fail(path: str, max_pixels: int) -> None:
        asked.append(path)
        raise MediaError(f"{path}: not a video", kind="NotAVideo")

    monkeypatch.setattr(ffmpeg, "probe", fail)
    for name, content in {"a.mp4": "Größe: 3 €\r\n" * 200, "b.mp4": "\0\1" * 500}.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(MediaError):
            media.probe(tmp_path / name)
    assert asked == [str(tmp_path / "b.mp4")]


def test_sound_only_stays_so_with_the_program(tmp_path: Path) -> None:
    with pytest.raises(MediaError) as caught:
        media.probe(write_sound(tmp_path / "a.wav"), "ffmpeg")
    assert caught.value.kind == "SoundOnly"


def test_a_run_given_up_ends_the_program(tmp_path: Path) -> None:
    info = media.probe(write_video(tmp_path / "a.mp4", 200), "ffmpeg")
    frames = media.read(info, info.seconds)
    next(frames)
    before = threading.active_count()
    frames.close()
    assert threading.active_count() == before - 1  # its listener left, so the program has ended


def test_without_a_program_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> str:
        raise RuntimeError("no program")

    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", none)
    with pytest.raises(UsageError) as caught:
        media.probe(write_video(tmp_path / "a.mp4", 2), "ffmpeg")
    assert "malmm[ffmpeg]" in (caught.value.hint or "")


# --- decord


@needs_decord
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.ts", "libx264", {}),
        ("a.avi", "mpeg4", {}),
        ("a.mov", "mjpeg", {}),
        ("refresh.mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=20"}),
        ("open.mp4", "libx264", {"bf": "3", "x264-params": "open-gop=1:keyint=10:scenecut=0"}),
    ],
)
def test_decord_refuses_what_it_gets_wrong(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_video(tmp_path / name, codec=codec, options=options, pixel_format=pixel_format)
    with pytest.raises(MediaError, match="decord") as caught:
        media.probe(path, "decord")
    assert caught.value.hint == "use --decoder auto"


@needs_decord
def test_decord_refuses_edit_lists_and_mirrors(tmp_path: Path) -> None:
    edited = write_video(tmp_path / "a.mp4", stamps=[40 * number for number in range(-15, 35)])
    mirrored = set_matrix(write_video(tmp_path / "b.mp4"), -1, 0, 0, 1)
    for path in (edited, mirrored):
        with pytest.raises(MediaError, match="decord"):
            media.probe(path, "decord")


@needs_decord
def test_decord_refuses_fields_and_cut_files_and_second_streams(tmp_path: Path) -> None:
    fields = write_fields(tmp_path / "a.mp4", 20)
    cut = write_video(tmp_path / "b.mkv", 100)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    two = tmp_path / "c.mkv"
    with av.open(str(write_video(tmp_path / "one.mp4", 5))) as source, av.open(two, "w") as output:
        copies = [output.add_stream_from_template(source.streams.video[0]) for _ in range(2)]
        for packet in source.demux(video=0):
            for copy in copies if packet.size else []:
                packet.stream = copy
                output.mux(packet)
    for path in (fields, cut, two):
        assert len(media.probe(path).seconds) > 0
        with pytest.raises(MediaError, match="decord"):
            media.probe(path, "decord")


@needs_decord
def test_decord_is_not_believed(tmp_path: Path) -> None:
    info = media.probe(write_video(tmp_path / "a.mp4", 50), "decord")
    write_video(tmp_path / "a.mp4", 40)  # another file than the one that was scanned
    with pytest.raises(MediaError, match="disagree"):
        list(media.read(info, info.seconds[[0, 10]]))


@needs_decord
def test_a_decord_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from malmm_cli.media import decord

    info = media.probe(write_video(tmp_path / "a.mp4", 50), "decord")
    monkeypatch.setattr(decord, "TIMEOUT", 0.001)
    with pytest.raises(MediaError, match="decord failed"):
        list(media.read(info, info.seconds[[0, 10]]))


def test_without_decord_it_says_where_it_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("malmm_cli.media.decord.find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        media.probe(write_video(tmp_path / "a.mp4", 2), "decord")
    assert "--decoder auto" in (caught.value.hint or "")
