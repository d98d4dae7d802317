"""Every file that is no video, and what is said of it."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import pytest
from helpers.media_files import number_of, picture, write_cover, write_sound, write_video
from PIL import Image

from malmm_cli import media
from malmm_cli.errors import MediaError, UsageError


@pytest.fixture(autouse=True)
def _no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an ffmpeg program every error must be as good."""

    def none() -> str:
        raise RuntimeError("no program")

    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", none)


def failure(path: Path | str, decoder: str = "auto") -> MediaError:
    with pytest.raises(MediaError) as caught:
        media.probe(path, decoder)
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith((str(path), repr(str(path))))
    return caught.value


def test_missing(tmp_path: Path) -> None:
    assert failure(tmp_path / "a.mp4").kind == "Missing"
    assert failure("nul\0.mp4").kind == "Missing"


def test_folder(tmp_path: Path) -> None:
    assert failure(tmp_path).kind == "Folder"
    assert "batch" in (failure(tmp_path).hint or "")


def test_empty(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    assert failure(tmp_path / "a.mp4").kind == "Empty"


@pytest.mark.skipif(os.name == "nt", reason="no pipes with names")
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")  # opening it would wait for ever
    assert failure(tmp_path / "a.mp4").kind == "NotAVideo"


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", 2)

    def refuse(*_: object) -> object:  # root may read anything, so permissions would prove nothing
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert failure(path).kind == "Unreadable"


CONTENTS = {
    "text.mp4": b"only some text\n" * 200,
    "notes.txt": b"only some text\n" * 200,
    "random.mp4": bytes(number * 7919 % 251 for number in range(50000)),
    "zeros.mp4": bytes(50000),
    "a.srt": b"1\n00:00:00,000 --> 00:00:01,000\nhello\n",
}


@pytest.mark.parametrize("name", CONTENTS)
def test_not_a_video(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(CONTENTS[name])
    assert failure(tmp_path / name).kind == "NotAVideo"


def test_cut_off(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[:-1500])  # the index comes last
    error = failure(path)
    assert error.kind == "CutOff"
    assert "index (moov) is missing" in error.message


def test_sound_only(tmp_path: Path) -> None:
    assert failure(write_sound(tmp_path / "a.wav")).kind == "SoundOnly"


def test_cover_only(tmp_path: Path) -> None:
    image = tmp_path / "a.jpg"
    Image.fromarray(picture(1)).save(image)
    assert failure(write_cover(tmp_path / "a.mp3", image)).kind == "CoverOnly"


PLAYLISTS = [
    b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nreal.ts\n#EXT-X-ENDLIST\n",
    b"\xef\xbb\xbf#EXTM3U\n#EXTINF:4,\nreal.ts\n",
    b"ffconcat version 1.0\nfile real.mp4\n",
    b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nc=IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n",
    b'<?xml version="1.0"?>\n<MPD type="static"><Period></Period></MPD>',
    b"WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n",
]


@pytest.mark.parametrize("text", PLAYLISTS)
@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_a_playlist_does_not_open_other_files(tmp_path: Path, text: bytes, decoder: str) -> None:
    write_video(tmp_path / "real.mp4", 5)
    write_video(tmp_path / "real.ts", 5)
    path = tmp_path / "a.mp4"
    path.write_bytes(text)
    assert failure(path, decoder).kind == "Playlist"


def test_no_picture(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", muxer={"movflags": "faststart"})
    data = path.read_bytes()
    start = data.index(b"mdat") + 4
    path.write_bytes(data[:start] + bytes(len(data) - start))
    assert failure(path).kind == "NoPicture"


def test_a_cut_photograph_is_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture(1)).resize((600, 400)).save(path)
    path.write_bytes(path.read_bytes()[:60])
    assert failure(path).kind in {"NoPicture", "NotAVideo"}


@pytest.mark.parametrize("path", ["-", "https://example.org/a.mp4", "rtsp://example.org/a"])
def test_streams_are_wrong_usage(path: str) -> None:
    with pytest.raises(UsageError) as caught:
        media.probe(path)
    assert caught.value.hint


def test_an_unknown_decoder_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="opencv") as caught:
        media.probe(tmp_path, "opencv")
    assert "auto, pyav, nvdec, ffmpeg, decord" in (caught.value.hint or "")


NAMES = ["a:b.mp4", "http:x.mp4", "-dash.mp4", "with 'quote' & \"two\".mp4", "per%03d.mp4", "100%"]
ODD_NAMES = ["new\nline.mp4", "видео_動画_🎬.mp4", " .mp4", "#EXTM3U", "$(x);`y`.mp4", "[1]*?.mp4"]


@pytest.mark.skipif(os.name == "nt", reason="names that Windows refuses")
@pytest.mark.parametrize("name", NAMES + ODD_NAMES)
def test_names_are_only_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_video(tmp_path / "plain.mp4", 3).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    info = media.probe(name)
    assert [number_of(frame.pixels) for frame in media.read(info, info.seconds)] == [0, 1, 2]


@pytest.mark.skipif(os.name == "nt", reason="names that Windows refuses")
def test_a_name_in_a_message_stays_on_its_line(tmp_path: Path) -> None:
    (tmp_path / "new\nline.mp4").touch()
    assert "\\n" in failure(tmp_path / "new\nline.mp4").message
    if os.uname().sysname == "Linux":
        (tmp_path / os.fsdecode(b"bad\xff.mp4")).touch()
        failure(tmp_path / os.fsdecode(b"bad\xff.mp4")).message.encode()


def test_a_name_is_no_pattern(tmp_path: Path) -> None:
    """FFmpeg would read img001.png and its like for img%03d.png."""
    for name, grey in (("img%03d.png", 0), ("img001.png", 99), ("img002.png", 255)):
        Image.new("L", (16, 16), grey).save(tmp_path / name)
    info = media.probe(str(tmp_path / "img%03d.png"))
    (frame,) = media.read(info, info.seconds.tolist())
    assert frame.pixels.max() == 0


def test_a_codec_that_nobody_knows(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, 5)
    content = path.read_bytes()
    assert content.count(b"avc1") >= 1
    place = content.rindex(b"avc1")
    path.write_bytes(content[:place] + b"zzzz" + content[place + 4 :])
    assert failure(path).kind == "NoPicture"


def test_boxes_nested_without_end(tmp_path):
    from malmm_cli.media.boxes import boxes_of

    for kind in (b"moov", b"trak", b"stsd"):
        body = b""
        for _ in range(5000):
            body = struct.pack(">I4s", 8 + len(body), kind) + body
        path = tmp_path / "nested.mp4"
        path.write_bytes(struct.pack(">I4s", 8 + len(body), b"moov") + body)
        assert boxes_of(str(path)).tracks == {}
