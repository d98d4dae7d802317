"""Where a question looks, and what is shown to it again."""

from __future__ import annotations

import pytest
import torch

from malmm_cli.memory.spans import Slots
from malmm_cli.models.base import LooksAgain
from malmm_cli.models.vlm.second_look import beside, narrowed
from malmm_cli.settings import Decoding, MemoryOptions

PROMPTS = ["how many?", "red circle?"]
GREEDY = Decoding(max_new_tokens=8, beams=1, repetition_penalty=1.0)


def slots(number: int, start: float = 0.0, step: float = 1.0) -> Slots:
    """Slots of one frame each, with a rider."""
    rows = torch.randn(number, 3, 4)
    begins = start + step * torch.arange(number).double()
    seconds = begins[:, None, None].expand(-1, 3, 2)
    return Slots(rows, torch.ones(number, 3).long(), seconds, {"place": torch.randn(number, 3, 2)})


def watched(model, frames: int = 8, seed: int = 0):
    width, height = model.frame_size(96, 96)
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (frames, height, width, 3), generator=generator).byte()
    features = model.encode(pixels, torch.arange(float(frames)).double())
    memory = model.start(PROMPTS, MemoryOptions(4, banks="visual", merge="frame"))
    model.observe(memory, features)
    return memory, features


def test_every_architecture_can(model, one_thread):
    assert isinstance(model, LooksAgain)
    memory, _ = watched(model)
    context = model.context(memory)
    before = model.score(context, PROMPTS, ["red", "red"])
    looked = model.looks_at(context, PROMPTS)
    number = len(memory.given().rows)
    assert looked.shape == (2, number)
    assert looked.isfinite().all()
    assert (looked > 0).all()
    assert not torch.equal(looked[0], looked[1])
    assert torch.equal(looked, model.looks_at(context, PROMPTS)), "looking changed something"
    assert torch.equal(model.score(context, PROMPTS, ["red", "red"]), before)


def test_what_is_shown_again_is_among_half_of_the_rest(model, one_thread):
    memory, features = watched(model)
    before = memory.given()
    again = model.look_again(memory, features.some(slice(1, 3)), PROMPTS)
    number = len(before.rows)
    patches = features.rows.shape[1]
    shown = int(again.extras["visual"][0].sum()) // patches
    assert shown == min(number, max(number - 2, number // 2, 1) + 2)
    assert torch.equal(memory.given().rows, before.rows)
    assert len(model.generate(again, PROMPTS, GREEDY)) == 2
    visual = again.tokens[0][again.extras["visual"][0]].view(shown, patches, -1)
    for row in features.rows[1:3]:
        assert (visual == row).flatten(1).all(1).any(), "a frame is not shown as it is"


def test_narrowed_slots_are_means_and_partition_what_they_show():
    torch.manual_seed(0)
    given = slots(9)
    few = narrowed(given, 4)
    assert len(few.rows) == 4
    assert (few.counts.sum(0) == 9).all()
    ends = few.counts.cumsum(0)
    for place, (count, end) in enumerate(zip(few.counts[:, 0], ends[:, 0], strict=True)):
        own = slice(int(end - count), int(end))
        torch.testing.assert_close(few.rows[place], given.rows[own].mean(0))
        torch.testing.assert_close(few.riders["place"][place], given.riders["place"][own].mean(0))
        assert few.seconds[place, 0].tolist() == [own.start, own.stop - 1]
    assert torch.equal(narrowed(given, 20).rows, given.rows)
    assert len(narrowed(given, 0).rows) == 1


@pytest.mark.parametrize("seed", range(3))
def test_both_stand_in_order_of_time(seed):
    torch.manual_seed(seed)
    one, other = slots(5, step=10.0), slots(4, start=12.0)
    both = beside(one, other)
    middles = both.seconds.mean((1, 2))
    assert torch.equal(middles, middles.sort().values)
    assert both.rows[2:6].equal(other.rows)
    assert both.rows[[0, 1, 6, 7, 8]].equal(one.rows)
    assert both.riders["place"].shape == (9, 3, 2)
