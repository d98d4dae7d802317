"""Decoding in a process of its own: the same pictures, and faults that stay there."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from helpers.commands import SAMPLE
from PIL import Image

from malmm_cli import media
from malmm_cli.errors import MalmmError, MediaError, UsageError
from malmm_cli.media import sandbox as sandboxes
from malmm_cli.media.sandbox import Limits, Sandbox


@pytest.fixture(scope="module")
def sandbox():
    made = Sandbox()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _generous(request):
    """Whatever a test left."""
    if "sandbox" in request.fixturenames:
        made = request.getfixturevalue("sandbox")
        made.limits, made.deadline = Limits(), float("inf")


def child_of(sandbox):
    return psutil.Process(sandbox._child.pid)


def test_decoders_are_imported_in_the_child_only():
    program = "import sys, malmm_cli.media.sandbox; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize("size", [None, (24, 16)])
def test_the_same_pictures(sandbox, clip, size):
    info, own = sandbox.probe(clip), media.probe(clip)
    assert (info.seconds == own.seconds).all()
    for name in ("path", "decoder", "width", "height", "duration", "source_start", "warnings"):
        assert getattr(info, name) == getattr(own, name)
    times = own.seconds[::10].tolist()
    for one, other in zip(
        sandbox.read(info, times, size), media.read(own, times, size), strict=True
    ):
        assert (one.seconds, one.source_seconds) == (other.seconds, other.source_seconds)
        assert (one.pixels == other.pixels).all()


def test_one_child_for_many_files(sandbox, clip):
    sandbox.probe(clip)
    first = child_of(sandbox).pid
    for _ in range(3):
        info = sandbox.probe(SAMPLE)
        assert len(list(sandbox.read(info, info.seconds[:2].tolist(), (8, 8)))) == 2
    assert child_of(sandbox).pid == first


def test_errors_are_those_of_media(sandbox, tmp_path, clip):
    (tmp_path / "text.mp4").write_text("not a video")
    for path, decoder in (("nope.mp4", "auto"), (tmp_path / "text.mp4", "auto"), (clip, "other")):
        with pytest.raises(MalmmError) as own:
            media.probe(path, decoder)
        with pytest.raises(type(own.value)) as told:
            sandbox.probe(path, decoder)
        assert (told.value.message, told.value.hint, told.value.kind) == (
            *(own.value.message, own.value.hint, own.value.kind),
        )
    with pytest.raises(UsageError):
        sandbox.probe(clip, "other")


def test_warnings_come_through(sandbox, tmp_path, clip):
    raw = clip.read_bytes()
    cut = tmp_path / "cut.mkv"
    from helpers.media_files import write_video

    cut.write_bytes(write_video(tmp_path / "whole.mkv").read_bytes()[: len(raw) // 2])
    own, told = media.probe(cut), sandbox.probe(cut)
    assert told.warnings == own.warnings != ()


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
def test_a_crash_is_told_and_the_next_file_is_read(sandbox, clip, monkeypatch, name):
    number = signal.Signals[name]
    info = sandbox.probe(clip)
    os.kill(child_of(sandbox).pid, number)
    sandbox._child.join()
    sandbox.probe(clip)
    pictures = sandbox.read(info, info.seconds.tolist())
    next(pictures)
    os.kill(child_of(sandbox).pid, number)
    with pytest.raises(MediaError, match=f"decoding crashed: .* {name}") as caught:
        list(pictures)
    assert caught.value.kind == "Crashed"
    assert len(sandbox.probe(clip).seconds) == 50


def test_a_hang_is_ended(sandbox, clip, monkeypatch):
    sandbox.probe(clip)
    hung = child_of(sandbox)
    hung.suspend()
    monkeypatch.setattr(sandboxes, "QUIET", 0.5)
    with pytest.raises(MediaError, match="decoding hung") as caught:
        sandbox.probe(clip)
    assert caught.value.kind == "Hung"
    assert not hung.is_running()
    monkeypatch.undo()
    assert len(sandbox.probe(clip).seconds) == 50


def test_a_deadline(sandbox, clip):
    sandbox.probe(clip)
    sandbox.deadline = time.monotonic() + 0.3
    child_of(sandbox).suspend()
    with pytest.raises(MediaError, match="timed out while decoding") as caught:
        sandbox.probe(clip)
    assert caught.value.kind == "Timeout"


def test_pictures_not_taken_are_in_nobodys_way(sandbox, clip):
    info = sandbox.probe(clip)
    pictures = sandbox.read(info, info.seconds.tolist())
    next(pictures)
    pictures.close()
    info = sandbox.probe(SAMPLE)
    (frame,) = sandbox.read(info, info.seconds[:1].tolist(), (4, 4))
    assert frame.pixels.shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("limits", "kind", "says"),
    [
        (Limits(pixels=6000), "TooLarge", "96 × 64 exceeds the limit of 0.006 million pixels"),
        (Limits(duration=1.0), "TooLong", "2 s exceeds the limit of 1 s"),
        (Limits(decoded=50000), "TooLarge", "0.0 GiB exceeds the limit of 0.0 GiB"),
    ],
)
def test_limits(sandbox, clip, limits, kind, says):
    sandbox.limits = limits

    def look():
        info = sandbox.probe(clip)
        list(sandbox.read(info, info.seconds.tolist()))

    with pytest.raises(MediaError, match=says) as caught:
        look()
    assert caught.value.kind == kind


def test_a_picture_that_wants_too_much_memory(tmp_path):
    """A small file that says it is 20,000 × 20,000: 1.2 GB of pixels."""
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    assert path.stat().st_size < 10**6
    sandbox = Sandbox(Limits(pixels=10**9, memory=2**30))
    try:
        with pytest.raises(MalmmError) as caught:
            sandbox.probe(path)
        assert caught.value.kind in {"NoPicture", "NotAVideo", "Crashed", "CapacityError"}
        assert len(sandbox.probe(SAMPLE).seconds) == 1200
    finally:
        sandbox.close()


def test_a_child_can_send_no_code(sandbox, clip):
    """What it says is JSON and raw numbers: nothing of it is unpickled."""
    import inspect

    source = inspect.getsource(sandboxes)
    assert "recv_bytes" in source
    assert ".recv(" not in source
    assert "pickle" not in source


def test_it_ends_with_its_parent(clip):
    sandbox = Sandbox()
    sandbox.probe(clip)
    child = child_of(sandbox)
    sandbox._talk.close()
    child.wait(20)
    assert not child.is_running()
    sandbox._talk = None
    sandbox.close()
