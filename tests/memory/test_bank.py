"""The bank's invariants, and that its cheap form is the plain one."""

import pytest
import torch
from torch import nn

from malmm_cli.memory.bank import MemoryBank, PlainBank
from malmm_cli.memory.rule import Rule

LENGTHS = [1, 2, 3, 5, 10]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def stream(bank, frames, project=lambda rows: [rows]):
    """Feed frames (B, T, P, C) one by one; yield what attention sees at each step."""
    for step in range(frames.shape[1]):
        seen = bank.read(frames[:, step], project)
        yield [value.clone() for value in seen]
        bank.append(project)


def stored(bank):
    return (bank.entries, bank.counts) if isinstance(bank, PlainBank) else bank.in_time()


def test_hand_worked_example():
    """Slots 1 and 2 are alike; the second stands for 3 frames, so it weighs three times as much."""
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 5.0], [-1.0, 0.0]])[None, :, None]
    counts = torch.tensor([1.0, 1.0, 3.0, 1.0])[None, :, None]
    merged, total = Rule().compress(bank, counts)
    assert merged[0, :, 0].tolist() == [[1.0, 0.0], [0.0, 4.0], [-1.0, 0.0]]
    assert total[0, :, 0].tolist() == [1.0, 4.0, 1.0]


def test_first_maximum_wins():
    bank = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]])[None, :, None]
    merged, total = Rule().compress(bank, torch.ones(1, 4, 1))
    assert total[0, :, 0].tolist() == [2.0, 1.0, 1.0]
    assert merged[0, :, 0].tolist() == [[2.0, 0.0], [0.0, 2.0], [0.0, 2.0]]


def test_positions_are_compressed_on_their_own():
    bank = torch.tensor(
        [[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.1], [0.0, 1.0]], [[0.0, 1.0], [0.1, 1.0]]]
    )
    _, total = Rule().compress(bank[None], torch.ones(1, 3, 2))
    assert total[0].tolist() == [[2.0, 1.0], [1.0, 2.0]]


def test_zero_vectors_are_like_nothing():
    """A black patch has no direction: its similarity is 0, and nothing becomes NaN."""
    bank = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 2.0]])[None, :, None]
    merged, total = Rule().compress(bank, torch.ones(1, 4, 1))
    assert total[0, :, 0].tolist() == [1.0, 1.0, 2.0]
    assert merged.isfinite().all()


@pytest.mark.parametrize("form", [MemoryBank, PlainBank])
@pytest.mark.parametrize("length", LENGTHS)
def test_nothing_is_lost(form, length):
    """Counts add up to the frames seen, and counts x entries to their sum; never above length."""
    frames = torch.randn(2, 25, 3, 8)
    bank = form(length)
    for step, _ in enumerate(stream(bank, frames)):
        if step == 0:
            continue
        # stream appends after it yields: this is the state after the step before
        entries, counts = stored(bank)
        assert entries.shape[1] <= length
        assert (counts.sum(1) == step).all()
        weighted = (entries * counts[..., None]).sum(1)
        torch.testing.assert_close(weighted, frames[:, :step].sum(1), atol=1e-5, rtol=0)
    assert stored(bank)[0].shape[1] == length


@pytest.mark.parametrize("form", [MemoryBank, PlainBank])
def test_short_videos_are_untouched(form):
    frames = torch.randn(1, 4, 3, 8)
    bank = form(4)
    list(stream(bank, frames))
    entries, counts = stored(bank)
    assert torch.equal(entries, frames)
    assert (counts == 1).all()


@pytest.mark.parametrize("policy", ["mbc", "fifo", "random", "uniform"])
@pytest.mark.parametrize("length", LENGTHS)
def test_slots_are_the_plain_form(length, policy):
    """Merging stored keys and values equals projecting the merged bank anew, at every step."""
    frames = torch.randn(2, 40, 3, 8)
    key, value = nn.Linear(8, 6), nn.Linear(8, 6)

    @torch.no_grad()
    def project(rows):
        return [key(rows), value(rows)]

    slots, plain = MemoryBank(length, Rule(policy)), PlainBank(length, Rule(policy))
    for ours, due in zip(
        stream(slots, frames, project), stream(plain, frames, project), strict=True
    ):
        for a, b in zip(ours, due, strict=True):
            torch.testing.assert_close(by_content(a), by_content(b), atol=1e-5, rtol=0)
    for a, b in zip(stored(slots), stored(plain), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    converted = slots.plain()
    assert torch.equal(converted.entries, slots.in_time()[0])


def by_content(rows):
    """Rows (B, K, D) in an order that depends on their values alone; attention has none."""
    return torch.stack([batch[batch[:, 0].argsort()] for batch in rows])


def test_fifo_keeps_the_newest():
    frames = torch.randn(1, 9, 2, 4)
    bank = MemoryBank(3, Rule("fifo"))
    list(stream(bank, frames))
    assert torch.equal(bank.in_time()[0], frames[:, -3:])
    assert (bank.in_time()[1] == 1).all()


def test_a_full_bank_is_never_copied():
    """A step writes two slots of each position in place, whatever the length."""
    frames = torch.randn(1, 30, 4, 8)
    bank = MemoryBank(10)
    steps = stream(bank, frames)
    for _ in range(15):
        next(steps)
    place, before = bank.projections[0].data_ptr(), bank.projections[0].clone()
    next(steps)
    changed = (bank.projections[0] != before).any(-1).sum(1)
    assert bank.projections[0].data_ptr() == place
    assert (changed <= 2).all()


def test_half_precision_projects_merged_rows_anew():
    """Rows stay in float32, and what is stored is always their projection, however long it runs."""
    frames = torch.randn(1, 200, 2, 8)
    key = nn.Linear(8, 6).to(torch.bfloat16)

    @torch.no_grad()
    def project(rows):
        return [key(rows.to(torch.bfloat16))]

    bank = MemoryBank(4)
    list(stream(bank, frames.to(torch.bfloat16), project))
    assert bank.rows.dtype == bank.counts.dtype == bank.similarity.dtype == torch.float32
    held = bank.order[:, : bank.used]
    rows = bank.rows.gather(1, held[..., None].expand(-1, -1, -1, 8))
    keys = bank.projections[0].gather(1, held[..., None].expand(-1, -1, -1, 6))
    assert torch.equal(keys, project(rows)[0])


@pytest.mark.parametrize("form", [MemoryBank, PlainBank])
def test_gradient_stays_out_of_the_past(form):
    frames = torch.randn(1, 3, 2, 4, requires_grad=True)
    bank = form(2)
    with torch.no_grad():
        list(stream(bank, frames[:, :2]))
    key = nn.Linear(4, 4)
    plain = bank if form is PlainBank else bank.plain()
    (keys,) = plain.read(frames[:, 2], lambda rows: [key(rows)])
    keys.square().sum().backward()
    assert frames.grad[:, :2].eq(0).all()
    assert frames.grad[:, 2].ne(0).any()
    everything = frames.detach().flatten(0, 2)
    due = 2 * key(everything).T @ everything  # every entry reaches the weights
    torch.testing.assert_close(key.weight.grad, due.detach())
