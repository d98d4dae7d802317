from itertools import pairwise

import numpy as np
import pytest

from malmm_cli.errors import OutputError, UsageError
from malmm_cli.synthetic import COLOURS, MOTIONS, SHAPES, Event, render, scenario, write_mp4


def test_the_seed_decides():
    assert scenario(3, 60) == scenario(3, 60)
    assert scenario(3, 60) != scenario(4, 60)


def test_a_scenario_is_the_same_on_every_machine():
    assert scenario(484, 60)[:2] == [
        Event(0.0, 5.32, "star", "orange", "in waves"),
        Event(5.32, 10.37, "heart", "pink", "from right to left"),
    ]


@pytest.mark.parametrize("seconds", [1, 7.5, 60, 3600])
def test_events_follow_each_other_and_fill_the_time(seconds):
    events = scenario(0, seconds)
    assert events[0].start == 0
    assert events[-1].end == seconds
    assert all(a.end == b.start for a, b in pairwise(events))
    for a, b in pairwise(events):
        assert a.shape != b.shape
        assert a.colour != b.colour
        assert a.motion != b.motion


def one(shape="circle", colour="red", motion="from left to right", start=0.0, end=4.0):
    return Event(start, end, shape, colour, motion)


def test_pictures_are_rgb_of_the_size_asked_for_and_as_many_as_time_times_rate():
    pictures = list(render([one()], seconds=2, fps=5, size=(64, 48)))
    assert len(pictures) == 10
    assert {(p.shape, p.dtype) for p in pictures} == {((48, 64, 3), np.dtype(np.uint8))}


def seen_colour(picture, background):
    """Columns and rows, as shares, where the picture differs clearly from the background."""
    difference = np.abs(picture.astype(int) - background).max(axis=2) > 60
    rows, columns = np.nonzero(difference)
    return columns / picture.shape[1], rows / picture.shape[0]


@pytest.mark.parametrize("motion", sorted(MOTIONS))
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_the_shape_is_where_its_motion_says_and_whole(shape, motion):
    background = next(render([], 1, 1)).astype(int)
    pictures = list(render([one(shape, "purple", motion)], seconds=4, fps=4))
    for k, done in [(2, 1 / 8), (8, 1 / 2), (12, 3 / 4)]:
        x, y = seen_colour(pictures[k], background)
        where = MOTIONS[motion](done)
        assert (x.mean(), y.mean()) == pytest.approx(where, abs=0.03)
        assert min(*x, *y) > 0
        assert max(x.max() - where[0], where[0] - x.min()) < 0.13


def test_every_colour_stands_out_and_is_itself():
    for name, rgb in COLOURS.items():
        picture = list(render([one(colour=name, end=2.0)], seconds=2, fps=1))[1]
        assert tuple(picture[120, 160]) == rgb


def test_edges_are_smooth():
    background, _, picture = render([one(start=1, end=3)], seconds=3, fps=1)
    row, plain = picture[120], background[120]
    mixed = (row != plain).any(axis=1) & (row != COLOURS["red"]).any(axis=1)
    assert mixed.any()


def test_an_event_is_seen_from_its_start_up_to_its_end_and_never_outside():
    background = next(render([], 1, 1))
    pictures = list(render([one(start=1, end=3)], seconds=4, fps=4))
    differs = [bool((picture != background).any()) for picture in pictures]
    assert differs == [False] * 5 + [True] * 7 + [False] * 4  # at its very start it has no size


def test_a_file_gives_back_its_pictures_and_their_times(tmp_path):
    av = pytest.importorskip("av")
    pictures = list(render(scenario(1, 2), seconds=2, fps=12.5, size=(160, 120)))
    path = tmp_path / "clip.mp4"
    write_mp4(iter(pictures), path, fps=12.5)
    with av.open(str(path)) as file:
        decoded = [(f.time, f.to_ndarray(format="rgb24")) for f in file.decode(video=0)]
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
    assert [time for time, _ in decoded] == pytest.approx([k / 12.5 for k in range(25)])
    for (_, read), drawn in zip(decoded, pictures, strict=True):
        assert np.abs(read.astype(int) - drawn).mean() < 4
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_video_is_written_whole_or_not_at_all(tmp_path):
    def breaks():
        yield from render(scenario(1, 5), 5, 25, (64, 48))
        raise KeyboardInterrupt

    path = tmp_path / "clip.mp4"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt):
        write_mp4(breaks(), path, fps=5)
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]


def test_what_cannot_be_written_says_why(tmp_path):
    with pytest.raises(UsageError, match="at least one frame"):
        write_mp4([], tmp_path / "clip.mp4", fps=5)
    for size in [(63, 48), (64, 47)]:
        with pytest.raises(UsageError, match="even, not {}x{}".format(*size)):
            write_mp4(render([], 1, 1, size), tmp_path / "clip.mp4", fps=5)
    with pytest.raises(OutputError, match=r"cannot write .*clip\.mp4: No such file"):
        write_mp4(render([], 1, 1, (64, 48)), tmp_path / "missing" / "clip.mp4", fps=5)
