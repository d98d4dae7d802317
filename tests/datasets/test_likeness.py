"""Telling drawn frames from others."""

import numpy as np
import pytest

from malmm_cli.datasets.likeness import background_share, looks_drawn
from malmm_cli.datasets.synthetic import render, scenario


def test_the_share_of_background_is_counted():
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    frames[1, 0, :, 1] = 200  # a quarter
    assert background_share(frames).tolist() == [1.0, 0.75]


@pytest.mark.parametrize("seed", range(5))
def test_the_world_looks_drawn_also_with_bars(seed):
    frames = np.stack(list(render(scenario(seed, seconds=60.0), fps=0.5)))
    assert looks_drawn(background_share(frames))
    bars = np.pad(frames, ((0, 0), (12, 12), (0, 0), (0, 0)))
    assert looks_drawn(background_share(bars))


@pytest.mark.parametrize("kind", ["noise", "gradient"])
def test_other_pictures_do_not(kind):
    if kind == "noise":
        frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    else:
        ramp = np.linspace(0, 255, 64).astype(np.uint8)
        frames = np.broadcast_to(ramp[None, None, :, None], (3, 64, 64, 3))
    assert not looks_drawn(background_share(frames))
