"""Settings: what a full bank does is named only where it is unusual, and seeds."""

import json
from dataclasses import replace

import pytest
from helpers.batches import result

from malmm_cli.batch.lines import item_of
from malmm_cli.errors import UsageError
from malmm_cli.evaluate.naming import main_options
from malmm_cli.models.instructblip.defaults import DEFAULTS
from malmm_cli.settings import Defaults, MemoryOptions, Sampling, changed
from malmm_cli.types import Task

USUAL = DEFAULTS.tasks["ask"]
UNUSUAL = {"policy": "random", "merge": "frame", "mean": "plain", "memory_seed": 2**64 - 1}
USUAL_RESULT = result(Task("a", "a.mp4"))


def test_compression_is_named_only_where_it_is_unusual():
    assert UNUSUAL.items() <= changed(USUAL, **UNUSUAL).as_dict().items()
    assert {"merge", "mean", "memory_seed"}.isdisjoint(USUAL.as_dict())
    assert "memory_seed" not in changed(USUAL, memory_seed=3).as_dict(), "it decides nothing"


def test_a_number_of_frames_and_a_rate_take_each_others_place():
    by_rate = replace(USUAL, sampling=Sampling(frames=None, fps=1.0, max_frames=9))
    assert changed(by_rate, frames=4).sampling == Sampling(frames=4)
    assert changed(USUAL, fps=2.0).sampling == Sampling(frames=None, fps=2.0)
    for given in ({"frames": 4, "fps": 2.0}, {"frames": 4, "max_frames": 3}):
        with pytest.raises(UsageError):
            changed(by_rate, **given)


def test_one_seed_is_that_of_texts_and_of_the_memory():
    def seeds(**changes):
        found = changed(USUAL, **changes)
        return found.decoding.seed, found.memory.seed

    assert seeds() == (None, 0)
    assert seeds(seed=7) == (7, 7)
    assert seeds(seed=7, memory_seed=8) == (7, 8)
    assert seeds(memory_seed=8) == (None, 8)
    for name in ("seed", "memory_seed"):
        with pytest.raises(UsageError, match=f"--seed {2**64}: must be between"):
            changed(USUAL, **{name: 2**64})


def test_a_family_may_lack_means_and_merges():
    less = Defaults(DEFAULTS.tasks, ("mbc",), ("both",))
    assert less.settings("ask").memory.merge == "token"
    for name, value in (("merge", "frame"), ("mean", "plain")):
        with pytest.raises(UsageError, match=f"--{name} {value}: not available"):
            less.settings("ask", **{name: value})


def test_options_in_reports():
    assert not {"--merge", "--mean", "--seed"} & {*main_options(USUAL.as_dict()).split()}
    said = main_options(changed(USUAL, **UNUSUAL).as_dict())
    assert said.endswith(f"--policy random --merge frame --mean plain --seed {2**64 - 1}")


@pytest.mark.parametrize("changes", [{}, UNUSUAL])
def test_a_result_and_its_line(changes):
    due = replace(USUAL_RESULT, **changes)
    memory = due.to_dict()["memory"]
    usual = {"length": 2, "policy": "mbc", "banks": "both"}
    seed = {"seed": UNUSUAL["memory_seed"]}
    unusual = {name: value for name, value in UNUSUAL.items() if name != "memory_seed"}
    assert memory == ({**usual, **unusual, **seed} if changes else usual)
    assert item_of(json.dumps(due.to_dict()).encode()) == due


def test_slots_that_cannot_fill_up_change_nothing_else():
    assert MemoryOptions(9, merge="frame", seed=4).within(3) == MemoryOptions(
        3, merge="frame", seed=4
    )


def test_frames_take_the_place_of_a_rate_and_a_rate_that_of_frames():
    by_rate = changed(USUAL, fps=1.0, max_frames=9)
    assert by_rate.sampling.frames is None
    found = changed(by_rate, frames=4).sampling
    assert (found.frames, found.fps, found.max_frames) == (4, None, None)
    assert changed(by_rate, max_frames=3).sampling.fps == 1.0
