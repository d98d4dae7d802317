"""Sound of any file: right samples, at the right time, or one line of what is wrong."""

import tracemalloc

import numpy as np
import pytest
from helpers.media_files import set_edits, write_video
from helpers.sound_files import LOUD, onset, write_tones

from malmm_cli import media
from malmm_cli.errors import MediaError, UsageError
from malmm_cli.media.sandbox import Sandbox
from malmm_cli.media.sound import probe_sound, read_sound, sound_tracks
from malmm_cli.media.sound_clock import Piece, on_clock


def read(path, number=None, *, pictures=False, **how):
    info = media.probe(path) if pictures else None
    return np.concatenate(list(read_sound(probe_sound(path, number, info), **how)), axis=1)


@pytest.mark.parametrize(
    ("name", "codec", "how"),
    [
        ("a.mp3", "libmp3lame", {"rate": 44100}),
        ("a.m4a", "aac", {"rate": 44100, "layout": "stereo"}),
        ("a.flac", "flac", {"rate": 96000, "form": "s32"}),
        ("a.wav", "pcm_s24le", {"rate": 192000}),
        ("b.wav", "pcm_s16le", {"rate": 8000}),
        ("c.wav", "pcm_s16le", {"rate": 48000, "layout": "5.1"}),
        ("d.wav", "pcm_f32le", {"layout": "4.0"}),
        ("e.mkv", "libopus", {"rate": 48000}),
        ("f.mp4", "aac", {"rate": 48000, "layout": "5.1"}),
    ],
)
def test_every_form_of_sound_gives_the_same_samples(tmp_path, name, codec, how):
    path = write_tones(tmp_path / name, codec, **how)
    whole, mixed = read(path, mix=False), read(path)
    assert whole.dtype == mixed.dtype == np.float32
    assert abs(whole.shape[1] - 48000) <= 128
    assert abs(onset(whole) - 1.0) < 0.002
    assert abs(onset(mixed) - 1.0) < 0.002
    assert abs(np.abs(whole[0]).max() - LOUD) < 0.06
    assert np.abs(whole[1:]).max(initial=0) < 0.02  # the silent channels
    share = {1: 1.0}.get(len(whole), 0.5)
    assert abs(np.abs(mixed).max() - LOUD * share) < 0.06


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "aac"), ("a.ts", "aac")])
def test_sound_is_on_the_clock_of_the_pictures(tmp_path, name, codec):
    path = write_tones(tmp_path / name, codec, late=1.0, gap=2.0, seconds=3.0, pictures=5.0)
    samples = read(path, pictures=True)
    assert abs(onset(samples) - 2.0) < 0.002
    assert not samples[:, :14000].any()
    assert abs(samples.shape[1] / 16000 - 6.0) < 0.05
    exact = read(path, pictures=True, start=1.5, stop=10.0)
    assert exact.shape == (1, 136000)
    assert abs(onset(exact) - 0.5) < 0.002
    np.testing.assert_array_equal(exact[:, :60000], samples[:, 24000:84000])


def test_an_edit_list_of_the_pictures_leaves_the_sound_where_it_was(tmp_path):
    path = write_tones(tmp_path / "a.mp4", "aac", pictures=3.0)
    assert abs(onset(read(path, pictures=True)) - 1.0) < 0.002
    set_edits(path, (2.0, 0.5, 1))  # the pictures': from 0.5 s on, on the movie's clock
    assert abs(onset(read(path, pictures=True)) - 1.0) < 0.002


def test_without_pictures_the_clock_begins_with_the_sound(tmp_path):
    path = write_tones(tmp_path / "a.mkv", "aac", late=1.0, pictures=1.0)
    assert abs(onset(read(path)) - 1.0) < 0.07
    assert abs(onset(read(path, pictures=True)) - 2.0) < 0.002


def test_tracks_are_listed_and_chosen_by_number(tmp_path):
    path = write_tones(tmp_path / "a.mkv", tracks=2, rate=8000)
    tracks = sound_tracks(path)
    assert [(t.number, t.codec, t.rate, t.channels) for t in tracks] == [
        (1, "pcm_s16le", 8000, 1),
        (2, "pcm_s16le", 8000, 1),
    ]
    for number in (1, 2):
        heard = read(path, number)[0, 16000:16320]
        assert np.abs(np.fft.rfft(heard)).argmax() == 20 * number  # of 50 Hz
    with pytest.raises(UsageError, match=r"--audio-track 3: .*a\.mkv has 2 sound tracks") as error:
        probe_sound(path, 3)
    assert error.value.hint == "give a number from 1 to 2"


def test_a_file_without_sound_says_so(tmp_path):
    path = write_video(tmp_path / "a.mp4", 5)
    assert sound_tracks(path) == ()
    with pytest.raises(MediaError, match=r"a\.mp4: no sound track$") as error:
        probe_sound(path)
    assert error.value.kind == "NoSound"


def test_sound_that_cannot_be_decoded_says_so(tmp_path):
    path = write_tones(tmp_path / "a.flac", "flac")
    data = path.read_bytes()
    begin = data.index(b"\xff\xf8")
    path.write_bytes(data[:begin] + bytes(len(data) - begin))
    with pytest.raises(MediaError, match=r"a\.flac: no sound could be decoded \(flac\)") as error:
        probe_sound(path)
    assert error.value.kind == "BrokenSound"


def test_damage_in_the_middle_is_silence_and_one_warning(tmp_path):
    path = write_tones(tmp_path / "a.m4a", "aac", at=2.5)
    data = bytearray(path.read_bytes())
    begin = data.index(b"mdat") + 4
    data[begin + 100 : begin + 250] = b"\xff" * 150
    path.write_bytes(data)
    warnings: list[str] = []
    samples = read(path, on_warning=warnings.append)
    assert abs(samples.shape[1] - 48000) <= 1200
    assert len(warnings) == 1
    assert "packets of sound cannot be decoded; silence instead" in warnings[0]


def test_not_media_is_refused_as_for_pictures(tmp_path):
    path = tmp_path / "a.mp3"
    path.write_text("not sound at all\n")
    with pytest.raises(MediaError) as error:
        probe_sound(path)
    assert error.value.kind == "NotAVideo"
    with pytest.raises(MediaError, match="no such file"):
        sound_tracks(tmp_path / "none.wav")


def test_the_native_rate_is_kept_when_asked_for(tmp_path):
    path = write_tones(tmp_path / "a.wav", rate=44100, layout="stereo", seconds=1.5)
    assert read(path, rate=None, mix=False).shape == (2, 66150)


def test_pieces_that_overlap_or_leave_gaps_become_one_stream():
    one = np.ones((1, 4), np.float32)
    pieces = [Piece(2, one), Piece(4, 2 * one), Piece(11, 3 * one, low=12, high=14)]
    chunks = list(on_clock(iter(pieces), 1, 3, last=16))
    assert max(chunk.shape[1] for chunk in chunks) == 3
    wave = np.concatenate(chunks, 1)[0].tolist()
    assert wave == [0, 0, 1, 1, 1, 1, 2, 2, 0, 0, 0, 0, 3, 3, 0, 0]


def test_memory_does_not_grow_with_the_length(tmp_path):
    def peak(seconds):
        path = write_tones(tmp_path / f"{seconds}.wav", rate=8000, seconds=seconds)
        sound = probe_sound(path)
        tracemalloc.start()
        for chunk in read_sound(sound):
            assert chunk.shape[1] <= 16000
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(120) < peak(5) + 200_000


def test_a_sandbox_gives_the_same_sound(tmp_path):
    path = write_tones(tmp_path / "a.mp4", "aac", late=1.0, pictures=3.0)
    sandbox = Sandbox()
    try:
        sandbox.probe(path)
        sound = sandbox.probe_sound(path)
        got = np.concatenate(list(sandbox.read_sound(sound, stop=4.0)), axis=1)
        with pytest.raises(UsageError, match="--audio-track 2"):
            sandbox.probe_sound(path, 2)
    finally:
        sandbox.close()
    np.testing.assert_array_equal(got, read(path, pictures=True, stop=4.0))
