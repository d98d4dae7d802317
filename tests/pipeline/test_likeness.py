"""A model of drawn videos warns about others."""

import numpy as np
import pytest
from helpers.commands import FAST, SAMPLE
from PIL import Image

import malmm_cli

FEW = {"frames": 4, "beams": 1, "max_new_tokens": 3}


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    chance = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("noise") / "noise.png"
    Image.fromarray(chance.integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(path)
    return path


def unlike(result):
    return [warning for warning in result.warnings if "unlike the drawn videos" in warning]


def test_a_video_unlike_its_world_is_warned_of(noise):
    tiny = malmm_cli.load("tiny")
    assert unlike(malmm_cli.caption(noise, model=tiny, **FEW))
    assert not unlike(malmm_cli.caption(SAMPLE, model=tiny, **FEW))


def test_the_warning_stays_with_cached_features(noise, tmp_path, malmm):
    options = ("--model", "tiny", "--frames", "4", "--max-new-tokens", "3", "--beams", "1")
    for _ in range(2):
        err = malmm("caption", noise, *options, "--cache", tmp_path).err
        assert "warning: " in err
        assert "unlike the drawn videos that tiny was trained on" in err


def test_the_warning_comes_once_for_all_questions(noise, malmm):
    done = malmm("ask", noise, "what?", "where?", *FAST)
    assert done.code == 0
    assert done.err.count("unlike the drawn videos") == 1
