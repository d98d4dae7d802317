"""Numbers with their nouns, and names that are nearly known."""

import pytest
from helpers.commands import SAMPLE

from malmm_cli.text.words import counted, known_names


def test_numbers_have_their_nouns():
    assert [counted(n, "video") for n in (0, 1, 2)] == ["0 videos", "1 video", "2 videos"]
    assert [counted(n, "entry", "entries") for n in (1, 2)] == ["1 entry", "2 entries"]


def test_the_nearest_name_comes_first():
    assert known_names("fif", ("mbc", "fifo")) == "did you mean fifo? one of mbc, fifo"
    assert known_names("xyz", ("mbc", "fifo")) == "one of mbc, fifo"


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("caption", SAMPLE, "--model", "tyny"), "tiny"),
        (("caption", SAMPLE, "--policy", "fif"), "fifo"),
        (("caption", SAMPLE, "--decoder", "pyaw"), "pyav"),
        (("caption", SAMPLE, "--format", "jsn"), "json"),
        (("batch", SAMPLE, "-o", "out/", "--format", "jsn"), "json"),
        (("eval", ".", "--format-in", "msvdqa", "--model", "tiny"), "msvd-qa"),
        (("bench", "model", "vicuna7b", "folder"), "vicuna-7b"),
    ],
)
def test_commands_say_what_was_meant(refused, arguments, meant):
    refused(*arguments, code=2, says="unknown", hint=f"did you mean {meant}? ")
