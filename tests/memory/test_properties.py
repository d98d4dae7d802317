"""What holds for any bank and any choice of pictures; hypothesis looks for what breaks it."""

import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from malmm_cli.datasets.metrics import is_right, words
from malmm_cli.errors import UsageError
from malmm_cli.media.sampling import ROUNDING, choose
from malmm_cli.memory.bank import MemoryBank, PlainBank
from malmm_cli.memory.rule import Rule
from malmm_cli.settings import Sampling

settings.register_profile(
    "repeatable", derandomize=True, deadline=None, database=None, max_examples=60
)
settings.load_profile("repeatable")


@st.composite
def frames(draw, most=12):
    """(B, T, P, C) of small whole numbers, so that ties, zeros and repetitions are common."""
    shape = (
        draw(st.integers(1, 2)),
        draw(st.integers(2, most)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
    )
    numbers = draw(
        st.lists(st.integers(-3, 3), min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))
    )
    return torch.tensor(numbers, dtype=torch.float64).reshape(shape)


def total(bank, counts):
    return (bank * counts[..., None]).sum(1)


@given(frames(), st.data())
def test_a_merge_keeps_counts_and_sums(bank, data):
    counts = torch.tensor(
        data.draw(
            st.lists(
                st.integers(1, 9),
                min_size=bank[..., 0].numel(),
                max_size=bank[..., 0].numel(),
            )
        ),
        dtype=torch.float64,
    ).reshape(bank.shape[:3])
    merged, number = Rule().compress(bank, counts)
    assert merged.shape == (bank.shape[0], bank.shape[1] - 1, *bank.shape[2:])
    assert torch.equal(number.sum(1), counts.sum(1))
    assert torch.allclose(total(merged, number), total(bank, counts))
    assert (merged.amax(1) <= bank.amax(1) + 1e-9).all(), "a mean lies between"
    assert (merged.amin(1) >= bank.amin(1) - 1e-9).all()


@given(frames(), st.integers(1, 6), st.sampled_from(["mbc", "fifo"]))
def test_a_bank_is_bounded_and_its_cheap_form_the_plain_one(seen, length, policy):
    def rows(stored):
        return [stored]

    cheap, plain = MemoryBank(length, Rule(policy)), PlainBank(length, Rule(policy))
    for step in range(seen.shape[1]):
        newcomer = seen[:, step].float()
        for bank in (cheap, plain):
            bank.read(newcomer, rows)
            bank.append(rows)
        entries, counts = cheap.in_time()
        assert plain.entries.shape[1] == entries.shape[1] == min(step + 1, length)
        assert torch.equal(counts, plain.counts)
        assert torch.allclose(entries, plain.entries, atol=1e-5)
    if policy == "mbc":
        assert (counts.sum(1) == seen.shape[1]).all(), "each frame is counted once"
        assert torch.allclose(total(entries, counts), seen.float().sum(1), atol=1e-3)
    else:
        assert torch.equal(entries, seen[:, -length:].float())


@st.composite
def timelines(draw):
    """Ascending times of pictures from 0, steady or not, and the end of the last one."""
    gaps = draw(st.lists(st.floats(0.005, 3.0), min_size=0, max_size=60))
    if draw(st.booleans()):
        gaps = [draw(st.sampled_from([0.01, 1 / 30, 0.04, 1.0]))] * len(gaps)
    seconds = np.concatenate([[0.0], np.cumsum(gaps)])
    return seconds, float(seconds[-1] + (gaps[-1] if gaps else 0.04))


def ranges():
    return st.tuples(st.none() | st.floats(0, 20), st.none() | st.floats(0.01, 40)).filter(
        lambda one: one[1] is None or one[1] > (one[0] or 0)
    )


def chosen(timeline, part, **how):
    seconds, duration = timeline
    try:
        found = choose(
            seconds, duration, Sampling(**{"frames": None, "start": part[0], "end": part[1], **how})
        )
    except UsageError:
        assert part[0] >= seconds[-1], "the only reason to refuse"
        return None
    assert len(found)
    assert (np.diff(found) > 0).all(), "ascending, none twice"
    assert np.isin(found, seconds).all()
    begin = seconds[seconds <= (part[0] or 0.0) + ROUNDING][-1]  # on the screen at the start
    assert found[0] >= begin
    assert part[1] is None or found[-1] <= max(part[1] + 2 * ROUNDING, begin)
    return found


@given(timelines(), ranges(), st.integers(1, 70))
def test_so_many_frames(timeline, part, number):
    found = chosen(timeline, part, frames=number)
    everything = chosen(timeline, part)
    if found is None:
        return
    assert len(found) <= min(number, len(everything))
    if number >= len(everything):
        assert np.array_equal(found, everything), "more than there are gives all"
    elif number > 1:
        assert (found[0], found[-1]) == (everything[0], everything[-1])


@given(timelines(), ranges(), st.floats(0.01, 200), st.none() | st.integers(1, 20))
def test_so_many_frames_a_second(timeline, part, fps, most):
    found = chosen(timeline, part, fps=fps)
    fewer = chosen(timeline, part, fps=fps, max_frames=most)
    if found is None:
        return
    assert np.isin(fewer, found).all()
    assert len(fewer) == min(len(found), most or len(found))
    stop = timeline[1] if part[1] is None else min(part[1], timeline[1])
    assert len(found) <= (stop - (part[0] or 0.0) + 3 * ROUNDING) * fps + 2


@pytest.mark.parametrize("number", [0, -1])
def test_no_frames_are_refused(number):
    with pytest.raises(UsageError):
        choose(np.zeros(1), 0.0, Sampling(frames=number))


@given(st.text(), st.sampled_from(["NFC", "NFD"]))
def test_a_text_is_right_in_each_of_its_forms(text, form):
    other = unicodedata.normalize(form, text)
    assert is_right(other, [text])
    assert words(other) == words(text)
