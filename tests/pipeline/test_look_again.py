"""A second look through the pipeline: which moments, what is given, what is said of it."""

from __future__ import annotations

import pytest
import torch

import malmm_cli
from malmm_cli.datasets.synthetic import render, scenario, write_mp4
from malmm_cli.errors import UsageError
from malmm_cli.memory.spans import Slots
from malmm_cli.models.vlm import random_init
from malmm_cli.pipeline.look_again import _spans

QUESTIONS = ["how many shapes?", "what is red?"]
HOW = {"memory": 6, "max_new_tokens": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("again") / "smolvlm"
    random_init.write(folder, random_init.tiny_config("smolvlm"), ["what", "how", "many", "red"])
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("again") / "scene.mp4"
    write_mp4(render(scenario(3, 20.0, events=2), 4.0), path, 4.0)
    return path


def slots(*spans: tuple[float, float]) -> Slots:
    seconds = torch.tensor(spans, dtype=torch.float64)[:, None].expand(-1, 2, -1)
    return Slots(torch.zeros(len(spans), 2, 3), torch.ones(len(spans), 2).long(), seconds)


@pytest.mark.parametrize(
    ("looks", "number", "due"),
    [
        ([9, 0, 0, 0], 1, [(0.0, 1.5)]),
        ([0, 0, 9, 0], 1, [(4.5, 8.0)]),
        ([0, 0, 0, 9], 1, [(8.0, 10.0)]),
        ([9, 8, 0, 0], 2, [(0.0, 4.5)]),
        ([9, 0, 8, 0], 2, [(0.0, 1.5), (4.5, 8.0)]),
        ([8, 0, 9, 7], 3, [(0.0, 1.5), (4.5, 10.0)]),
        ([1, 2, 3, 4], 9, [(0.0, 10.0)]),
    ],
)
def test_moments_reach_halfway_to_their_neighbours(looks, number, due):
    held = slots((0.0, 1.0), (2.0, 4.0), (5.0, 7.0), (9.0, 10.0))
    assert _spans(held, torch.tensor([*map(float, looks)]), number) == due


def test_results_name_the_moments_that_were_shown_again(folder, video):
    plain = malmm_cli.ask(video, QUESTIONS, model=folder, **HOW)
    again = malmm_cli.ask(video, QUESTIONS, model=folder, look_again=2, **HOW)
    assert all("looked_again" not in result.to_dict() for result in plain)
    for result in again:
        moments = result.to_dict()["looked_again"]
        assert 1 <= len(moments) <= 2
        assert all(0 <= m["start"] <= m["end"] <= 20 for m in moments)
        assert [m["start"] for m in moments] == sorted(m["start"] for m in moments)
    alone = malmm_cli.ask(video, QUESTIONS[1], model=folder, look_again=2, **HOW)
    assert alone[0].text == again[1].text
    assert alone[0].looked_again == again[1].looked_again


def test_it_needs_the_video_and_a_model_that_can(folder, video, tmp_path):
    malmm_cli.remember(video, model=folder, memory=6).write(tmp_path / "x.memory")
    with pytest.raises(UsageError, match="needs the video"):
        malmm_cli.ask(tmp_path / "x.memory", "what?", model=folder, look_again=1)
    with pytest.raises(UsageError, match="not available for this model"):
        malmm_cli.ask(video, "what?", model="tiny", look_again=1)
    with pytest.raises(UsageError, match="must be 0 or more"):
        malmm_cli.ask(video, "what?", model=folder, look_again=-1)
