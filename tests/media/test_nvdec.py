"""NVDEC, with software in place of a GPU: which files go to it, and what happens where it fails."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from av.codec.hwaccel import HWAccel
from helpers.media_files import number_of, write_video

from malmm_cli import media
from malmm_cli.media import nvdec, packets


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Software that is taken for NVDEC; the files it was to decode."""
    opened: list[str] = []
    open_file = packets.open_file

    def record(path: str, *given: object) -> object:
        opened.append(path)
        return open_file(path, given[0])

    monkeypatch.setattr(nvdec, "available", lambda: True)
    monkeypatch.setattr(nvdec, "_hardware", lambda: None)
    monkeypatch.setattr(nvdec, "open_file", record)
    return opened


def test_auto_takes_it_where_it_is_there_and_decodes_the_file(
    tmp_path: Path, gpu: list[str]
) -> None:
    path = write_video(tmp_path / "a.mp4")
    info = media.probe(path)
    assert info.decoder == "nvdec"
    assert gpu == [str(path)], "the first picture was tried"
    frames = list(media.read(info, info.seconds))
    assert [number_of(frame.pixels) for frame in frames] == list(range(50))


@pytest.mark.usefixtures("gpu")
def test_what_is_not_for_it_stays_with_pyav(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mov", codec="mjpeg", pixel_format="yuvj420p")
    assert media.probe(path).decoder == "pyav"
    info = media.probe(path, "nvdec")
    assert info.decoder == "pyav"
    assert info.warnings == ("nvdec cannot decode this mjpeg; using pyav",)


def test_a_gpu_that_decodes_nothing_is_not_used(
    tmp_path: Path, gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> object:
        raise av.PermissionError(1, "no such device")

    monkeypatch.setattr(nvdec, "open_file", fail)
    assert media.probe(write_video(tmp_path / "a.mp4")).decoder == "pyav"


def test_from_a_picture_on_that_it_fails_at_software_goes_on(
    tmp_path: Path, gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    info = media.probe(write_video(tmp_path / "a.mp4"))
    pictures = nvdec.pyav.pictures

    def weak(track: object, indices: list[int], hardware: object = "software") -> object:
        for index, pixels in pictures(track, indices):
            if hardware == "software" or index != 7:
                yield index, pixels
            if hardware != "software" and index == 20:
                raise av.ExternalError(1, "the device is lost")

    monkeypatch.setattr(nvdec.pyav, "pictures", weak)
    warnings: list[str] = []
    frames = list(media.read(info, info.seconds, on_warning=warnings.append))
    assert [number_of(frame.pixels) for frame in frames] == list(range(50))
    few = list(media.read(info, info.seconds[[10, 20, 30]], on_warning=warnings.append))
    assert [number_of(frame.pixels) for frame in few] == [10, 20, 30]
    assert warnings == []


def test_without_a_gpu_it_is_said_in_one_line(tmp_path: Path, malmm) -> None:
    path = write_video(tmp_path / "a.mp4")
    if nvdec.available():
        pytest.skip("there is one")
    done = malmm("frames", path, "--frames", "4", "--decoder", "nvdec", "--json")
    assert done.code == 0
    assert done.err.count("nvdec finds no NVIDIA GPU; using pyav") == 1
    assert media.probe(path).decoder == "pyav"
    assert media.decoders()["nvdec"] == ""


@pytest.mark.skipif(not nvdec.available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "mpeg2video"])
def test_pictures_are_those_of_software_within_two_levels(tmp_path: Path, codec: str) -> None:
    path = write_video(tmp_path / "a.mkv", 60, codec=codec, size=(320, 240))
    soft, hard = media.probe(path, "pyav"), media.probe(path, "nvdec")
    assert isinstance(nvdec._hardware(), HWAccel)
    assert hard.decoder == "nvdec"
    for wanted in (soft.seconds, soft.seconds[[3, 30, 59]]):
        pairs = zip(media.read(soft, wanted), media.read(hard, wanted), strict=True)
        for one, other in pairs:
            assert np.abs(one.pixels.astype(int) - other.pixels).max() <= 2
