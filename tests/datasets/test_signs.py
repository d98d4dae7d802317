"""The world with signs: a number under every shape, and questions about it."""

from collections import Counter
from dataclasses import replace

import numpy as np

from malmm_cli.datasets.synthetic import caption, picture, questions, scenario, words

SCENES = [scenario(seed, 60, world="signs") for seed in range(40)]


def test_every_shape_has_a_number_and_no_caption_tells_it():
    numbers = Counter(event.number for scene in SCENES for event in scene.events)
    assert set(numbers) == {1, 2, 3, 4}
    assert {scene.world for scene in SCENES} == {"signs"}
    assert max(numbers.values()) < 2 * min(numbers.values())
    assert all(event.number == 0 for event in scenario(0, 60).events)
    for scene in SCENES:
        other = replace(scene, events=tuple(replace(e, number=1) for e in scene.events))
        assert caption(scene) == caption(other)


def test_a_number_is_seen_whole_from_begin_to_end_below_its_shape():
    for scene in SCENES[:10]:
        quiet = replace(scene, noise=0.0)
        for event in scene.events:
            bare = replace(quiet, events=(replace(event, number=0),))
            for share in (0.01, 0.5, 0.95):
                second = event.start + share * (event.end - event.start)
                there = [picture(one, second) for one in (bare, replace(quiet, events=(event,)))]
                changed = (np.abs(np.diff(np.stack(there).astype(int), axis=0)[0]) > 8).any(-1)
                rows = np.flatnonzero(changed.any(1))
                if event.motion != "vanishes" or share < 0.5:
                    assert len(rows) >= 8, (event, share)
                    assert rows.max() < len(changed) - 1, "cut off at the lower edge"


def test_questions_ask_for_numbers_with_words_that_are_known_and_equally_frequent_answers():
    asked = [one for scene in SCENES for one in questions(scene, 40) if one.kind == "detail"]
    assert len(asked) > 100
    for one in asked:
        assert set(one.question.rstrip("?").split()) <= set(words())
    answers = Counter(one.answer for one in asked)
    assert set(answers) == {"one", "two", "three", "four"}
    assert max(answers.values()) < 2 * min(answers.values())
    for scene in SCENES:
        numbers = {event.name: event.number for event in scene.events}
        for one in questions(scene, 40):
            if one.kind == "detail":
                name = one.question.removeprefix("what number is under the ").rstrip("?")
                assert one.answer == ("zero", "one", "two", "three", "four")[numbers[name]]


def test_other_worlds_ask_for_no_numbers():
    for world in ("plain", "hard"):
        scene = scenario(1, 60, world=world)
        assert all(one.kind != "detail" for one in questions(scene, 60))
