"""Times on the command line and in the Python API: one parser, one error text."""

import json
import pickle

import pytest

from malmm_cli.errors import UsageError
from malmm_cli.models.instructblip.defaults import CAPTION
from malmm_cli.settings import changed
from malmm_cli.text.clock import parse_seconds, seconds_text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("75", 75),
        (".5", 0.5),
        ("90s", 90),
        ("1h2m", 3720),
        ("1h2m3.5s", 3723.5),
        ("90m", 5400),
        ("2h", 7200),
        ("1h5s", 3605),
        ("1:15", 75),
        ("0:01:15.5", 75.5),
        ("100:00:00", 360_000),
        (" 1:15 ", 75),
    ],
)
def test_times(text, seconds):
    assert parse_seconds("--from", text) == seconds


@pytest.mark.parametrize(
    "text", ["", "-1", "x", "1:60", "1:75:00", "1h60m", "1m60s", "1s1m", "h", "1d", "٣", "1h 2m"]
)
def test_what_is_no_time(text):
    with pytest.raises(UsageError, match=r"^--from .*give seconds or \[HH:\]MM:SS"):
        parse_seconds("--from", text)


def test_python_takes_the_same_times():
    settings = changed(CAPTION, start="0:10", end="1m30s")
    assert (settings.sampling.start, settings.sampling.end) == (10.0, 90.0)
    with pytest.raises(UsageError, match="--from x: give seconds"):
        changed(CAPTION, start="x")


@pytest.mark.parametrize(
    ("text", "shown"), [("75", "75 s"), ("1h2m", "1h2m"), (" 1:15 ", "1:15"), ("90s", "90s")]
)
def test_messages_show_a_time_as_it_was_written(text, shown):
    """In copies too, which is what other processes get."""
    seconds = parse_seconds("--from", text)
    assert seconds_text(seconds) == shown
    assert seconds_text(pickle.loads(pickle.dumps(seconds))) == shown
    assert json.dumps(seconds) == json.dumps(float(seconds))
