"""The hard world: bursts, drift, discs, objects that come back, and what is asked about them."""

import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from malmm_cli.datasets.synthetic import (
    World,
    caption,
    held_out,
    intended_frames,
    picture,
    questions,
    scenario,
    words,
    write_dataset,
)
from malmm_cli.errors import UsageError

LENGTHS = [60, 200, 600]


def scenes(seconds, number=30, **how):
    return [scenario(seed, seconds, world="hard", **how) for seed in range(number)]


@pytest.mark.parametrize("seconds", LENGTHS)
def test_events_last_three_to_six_frames_and_come_in_bursts(seconds):
    step = seconds / (intended_frames(seconds, "hard") - 1)
    between = []
    for scene in scenes(seconds):
        assert scene.events[0].start >= 0
        assert scene.events[-1].end <= seconds
        for event in scene.events:
            assert 2.99 <= (event.end - event.start) / step <= 6.01
        between += [(b.start - a.end) / step for a, b in pairwise(scene.events)]
    assert min(between) >= 0.99, "one at a time"
    within = sum(gap <= 4.01 for gap in between) / len(between)
    assert 0.4 < within < 0.9
    assert sum(sum(e.end - e.start for e in s.events) for s in scenes(seconds)) < 0.6 * 30 * seconds


def test_there_is_a_frame_a_second_up_to_ten_minutes():
    assert [intended_frames(seconds, "hard") for seconds in (60, 600, 1200)] == [60, 600, 600]


def test_objects_come_back_in_a_later_burst_mostly_to_do_something_else():
    pairs = []
    for scene in scenes(600, 60):
        names = Counter(event.name for event in scene.events)
        assert max(names.values()) <= 2
        for name in (name for name, times in names.items() if times == 2):
            first, second = (event for event in scene.events if event.name == name)
            assert second.start - first.end > 4, "not in the same burst"
            pairs.append(first.motion == second.motion)
    assert len(pairs) > 20
    assert 0.1 < sum(pairs) / len(pairs) < 0.5


def test_combinations_that_are_held_out_are_in_no_training_video():
    for scene in scenes(600, 40, split="train"):
        assert not any(held_out(e.colour, e.shape, e.motion) for e in scene.events)


def test_background_and_light_drift_slowly_and_discs_cross_the_picture():
    """Nothing jumps from one second to the next but shapes; over a minute all of it changes."""
    scene = next(s for s in scenes(600) if s.events[0].start > 100 and s.distractors)
    quiet = [t for t in range(100) if not any(d.start <= t < d.end for d in scene.distractors)]
    near = [
        np.abs(
            picture(scene, t).astype(int).mean((0, 1)) - picture(scene, t + 1).mean((0, 1))
        ).max()
        for t in quiet[:20]
        if t + 1 in quiet
    ]
    assert max(near) < 2
    for still in ({"light": 0.0}, {"drift": 1e-9}):  # either is enough for a change in the end
        one = replace(scene, noise=0.0, events=(), distractors=(), **still)
        first, *others = (picture(one, t).astype(int) for t in range(0, 600, 40))
        assert max(np.abs(first - other).mean() for other in others) > 4
    disc = scene.distractors[0]
    seen = [picture(scene, disc.start + share * (disc.end - disc.start)) for share in (0.3, 0.7)]
    assert np.abs(seen[0].astype(int) - seen[1]).max() > 40


@pytest.mark.parametrize("seconds", LENGTHS)
def test_answers_are_true(seconds):
    kinds = Counter()
    for scene in scenes(seconds):
        names = [event.name for event in scene.events]
        for one in questions(scene, 30):
            kinds[one.kind] += 1
            check(scene, names, one.question, one.answer)
            assert 0 <= one.evidence[0] < one.evidence[1] <= seconds
    assert {"returning", "linked", "counted", "ordered", "compared"} <= kinds.keys()


def check(scene, names, question, answer):
    if found := re.fullmatch(r"what does the (.+) do the (first|second) time\?", question):
        motions = [event.motion for event in scene.events if event.name == found[1]]
        assert answer == motions[found[2] == "second"]
        assert len(motions) == 2
    elif found := re.fullmatch(r"does the (.+) do the same both times\?", question):
        first, second = (event.motion for event in scene.events if event.name == found[1])
        assert answer == ("yes" if first == second else "no")
    elif found := re.fullmatch(r"do the (.+) and the (.+) do the same\?", question):
        assert names.count(found[1]) == names.count(found[2]) == 1
        motions = {event.motion for event in scene.events if event.name in found.groups()}
        assert answer == ("yes" if len(motions) == 1 else "no")
    elif found := re.fullmatch(r"how many times does an? (\w+)( thing)? come\?", question):
        number = sum(found[1] in (event.colour, event.shape) for event in scene.events)
        assert answer == ("zero", "one", "two", "three", "four")[number]
    elif found := re.fullmatch(r"what does the (.+) do\?", question):
        motions = [event.motion for event in scene.events if event.name == found[1]]
        assert [answer] == (motions or ["nothing"]), "what comes twice is not asked about like this"


def test_yes_is_as_frequent_as_no_where_two_moments_are_compared():
    answers = Counter(
        one.answer for s in scenes(600, 80) for one in questions(s, 20) if one.kind == "linked"
    )
    assert 0.4 < answers["yes"] / answers.total() < 0.6


def test_every_word_is_known():
    known = set(words())
    for scene in scenes(200):
        texts = [caption(scene), *(f"{a.question} {a.answer}" for a in questions(scene, 30))]
        assert set(re.findall("[a-z]+", " ".join(texts))) <= known


def test_what_does_not_fit_says_what_does():
    with pytest.raises(UsageError, match="20 events in 60 s: must be between 1 and 8"):
        scenario(0, 60, events=20, world="hard")
    with pytest.raises(UsageError, match="unknown world 'harder'") as refused:
        scenario(0, 60, world="harder")
    assert "did you mean hard?" in refused.value.hint
    with pytest.raises(UsageError, match="a video of 5 s"):
        scenario(0, 5, world="hard")


def test_a_data_set_says_which_world_it_is_of(tmp_path):
    world = World(videos=1, seed=1, minutes=(0.2, 0.2), world="hard", fps=2.0)
    tasks = write_dataset(world, tmp_path / "hard")
    assert tasks[0].answers[0] == caption(world.scene(0))
    assert world.scene(0).world == "hard"
    with pytest.raises(UsageError, match=r"other settings: --world hard, not plain$"):
        write_dataset(World(videos=1, seed=1, minutes=(0.2, 0.2), fps=2.0), tmp_path / "hard")


def test_the_command_draws_it_and_refuses_other_worlds(malmm, refused, tmp_path):
    given = ["synth", tmp_path / "w", "--videos=1", "--minutes=0.2", "--fps=2", "-q"]
    malmm(*given, "--world=hard")
    assert '"world": "hard"' in (tmp_path / "w" / "world.json").read_text()
    refused("synth", tmp_path / "v", "--world=hrd", code=2, says="unknown world 'hrd'")
    assert not (tmp_path / "v").exists()
