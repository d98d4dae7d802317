"""What a full bank does under each rule: hand-worked examples, seeds, evenly spaced frames."""

import itertools

import pytest
import torch

from malmm_cli import settings
from malmm_cli.memory import rule
from malmm_cli.memory.bank import MemoryBank, PlainBank
from malmm_cli.memory.rule import MEANS, MERGES, POLICIES, Rule

LARGEST = 2**64 - 1
RULES = [
    Rule(policy, mean, merge, LARGEST, total)
    for policy, mean, merge, total in itertools.product(POLICIES, MEANS, MERGES, (None, 26))
]
RULES += [Rule(policy, merge=merge, fill="keep") for policy in POLICIES for merge in MERGES]
RULES += [Rule(policy, compared=2) for policy in ("mbc", "ward")]


def ones(bank):
    return torch.ones(bank.shape[:3])


def fed(bank, frames):
    """Yield a bank after each of frames (B, T, P, C)."""
    for step in range(frames.shape[1]):
        bank.read(frames[:, step], lambda rows: [2 * rows])
        bank.append(lambda rows: [2 * rows])
        yield bank


@pytest.mark.parametrize("how", RULES, ids=str)
@pytest.mark.parametrize("length", [4, 9])
def test_both_forms_agree_at_every_step(how, length):
    torch.manual_seed(0)
    frames = torch.randn(2, 25, 5, 4)
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    ours, plain = MemoryBank(length, how, mask), PlainBank(length, how, mask)
    for step, (one, other) in enumerate(zip(fed(ours, frames), fed(plain, frames), strict=True)):
        (rows, counts), (due, numbers) = one.in_time(), other.in_time()
        assert torch.equal(counts, numbers)
        torch.testing.assert_close(rows, due, atol=1e-5, rtol=0)
        doubled = one.projections[0].gather(
            1, one.order[:, : one.used, :, None].expand(-1, -1, -1, 4)
        )
        torch.testing.assert_close(doubled, 2 * due, atol=1e-5, rtol=0)
        if how.policy != "fifo":
            assert (counts.sum(1) == step + 1).all(), "each frame is counted once"
        merges = how.policy in ("mbc", "ward", "random") and how.fill == "mean"
        if merges and how.mean == "weighted":
            sums = (rows * counts[..., None]).sum(1)
            torch.testing.assert_close(sums, frames[:, : step + 1].sum(1), atol=1e-4, rtol=0)


def test_a_plain_mean_does_not_weigh():
    """Slots 1 and 2 are alike; that the second stands for 3 frames is only counted."""
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 5.0], [-1.0, 0.0]])[None, :, None]
    counts = torch.tensor([1.0, 1.0, 3.0, 1.0])[None, :, None]
    merged, total = Rule(mean="plain").compress(bank, counts)
    assert merged[0, :, 0].tolist() == [[1.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]
    assert total[0, :, 0].tolist() == [1.0, 4.0, 1.0]


def test_whole_frames_are_merged_by_their_mean_similarity():
    """Position 0 alone would merge the first pair; together with position 1 it is the second."""
    bank = torch.tensor(
        [[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.1], [-1.0, 0.0]], [[1.0, 0.4], [-1.0, 0.1]]]
    )[None]
    _, token = Rule().compress(bank, ones(bank))
    _, frame = Rule(merge="frame").compress(bank, ones(bank))
    assert token[0].tolist() == [[2.0, 1.0], [1.0, 2.0]]
    assert frame[0].tolist() == [[1.0, 1.0], [2.0, 2.0]]
    _, masked = Rule(merge="frame").compress(bank, ones(bank), torch.tensor([[True, False]]))
    assert masked[0].tolist() == [[2.0, 2.0], [1.0, 1.0]], "padding has a say"


def drawn(seed, frames, positions=1, merge="token"):
    """The left one of each pair that is drawn in a bank of 10 after so many frames."""
    counts = torch.ones(1, 11, positions)
    counts[:, 0] = frames - 10
    return Rule("random", merge=merge, seed=seed).pair(counts)[0].tolist()


def test_random_is_the_same_on_every_machine():
    assert drawn(0, 11, 12) == [7, 2, 9, 6, 8, 3, 9, 2, 9, 8, 5, 8]
    assert drawn(LARGEST, 11, 12) == [9, 1, 4, 1, 8, 2, 7, 9, 3, 4, 9, 2]
    assert drawn(0, 11, 12, "frame") == drawn(0, 11, 1) * 12


def test_random_takes_every_pair_about_as_often():
    for seed in (0, 1, LARGEST, 2**70):
        for found in (
            [drawn(seed, frames)[0] for frames in range(11, 2011)],
            drawn(seed, 11, 2000),
        ):
            often = torch.tensor(found).bincount(minlength=10)
            assert ((often > 140) & (often < 260)).all(), f"{seed}: {often.tolist()}"


def test_random_positions_and_seeds_do_not_follow_each_other():
    one, other, seed = (
        [drawn(number, frames, positions)[-1] for frames in range(11, 1011)]
        for number, positions in ((0, 1), (0, 2), (1, 1))
    )
    for found in (other, seed):
        gaps = torch.tensor([(a - b) % 10 for a, b in zip(one, found, strict=True)])
        assert gaps.bincount(minlength=10).max() < 160


@pytest.mark.parametrize("form", [MemoryBank, PlainBank])
@pytest.mark.parametrize(("total", "length"), [(5, 3), (6, 2), (12, 4), (60, 10), (61, 20), (9, 1)])
def test_uniform_ends_with_evenly_spaced_frames(total, length, form):
    """The last frame is read beside the bank, so that M + 1 are seen of the video."""
    frames = torch.randn(1, total, 2, 3)
    *_, bank = fed(form(length, Rule("uniform", total=total)), frames[:, :-1])
    rows, counts = bank.in_time()
    begins = [round(k * (total - 1) / length) for k in range(length)]
    assert torch.equal(rows, frames[:, begins])
    assert counts[0, :, 0].tolist() == [b - a for a, b in itertools.pairwise([*begins, total - 1])]


def test_uniform_of_an_unknown_number_of_frames():
    for seen in range(11, 300, 7):
        *_, bank = fed(PlainBank(10, Rule("uniform")), torch.arange(seen).view(1, -1, 1, 1))
        rows, counts = bank.in_time()
        assert counts.max() <= 4 * seen / 10
        assert torch.equal(rows.flatten(), (counts.cumsum(1) - counts).flatten())


def test_uniform_with_more_frames_than_were_told():
    *_, bank = fed(MemoryBank(3, Rule("uniform", total=6)), torch.randn(1, 20, 2, 3))
    assert (bank.in_time()[1].sum(1) == 20).all()


@pytest.mark.parametrize(
    "names", [{"policy": "lifo"}, {"mean": "median"}, {"merge": "patch"}, {"fill": "drop"}]
)
def test_unknown_names_are_refused(names):
    with pytest.raises(ValueError, match="unknown"):
        Rule(**names)


def test_settings_know_the_same_names():
    ours = (settings.BANK_POLICIES, settings.MERGES, settings.MEANS, settings.FILLS)
    assert ours == (rule.POLICIES, rule.MERGES, rule.MEANS, rule.FILLS)


def scenes(number: int, each: int, width: int = 16):
    """As many frames of each scene, all alike but for some noise: (1, T, 1, C)."""
    torch.manual_seed(1)
    rows = torch.nn.functional.normalize(torch.randn(number, 1, width), dim=-1)
    return (rows + 0.05 * torch.randn(number, each, width)).flatten(0, 1)[None, :, None]


def slots_of_scenes(how, number: int = 20, each: int = 50, length: int = 32):
    """How many slots each scene has in the end."""
    *_, bank = fed(MemoryBank(length, how), scenes(number, each))
    counts = bank.in_time()[1][0, :, 0]
    ends = counts.cumsum(0)
    return torch.bincount(((ends - counts / 2) // each).long(), minlength=number)


def test_ward_and_likeness_keep_every_scene_apart_and_random_neighbours_do_not():
    ward, likeness, random = (slots_of_scenes(Rule(name)) for name in ("ward", "mbc", "random"))
    assert ward.sum() == likeness.sum() == random.sum() == 32
    assert ward.min() == likeness.min() == 1
    assert ward[:-1].max() <= 3
    assert ward[-1] > 4, "the newest entries are guarded"
    assert random.min() == 0


def test_ward_leaves_the_newest_entries_alone():
    bank = torch.randn(1, 10, 1, 4)
    bank[:, 5:] = bank[:, 5:6]  # the newest five are all alike
    counts = torch.ones(1, 10, 1)
    _, merged = Rule("ward").compress(bank, counts)
    assert merged[0, -4:, 0].tolist() == [1.0] * 4
    _, alike = Rule("mbc").compress(bank, counts)
    assert alike[0, 5, 0] == 2


def test_ward_by_hand():
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], *[[-1.0, 0.0]] * 5])[None, :, None]
    counts = torch.tensor([1.0, 1.0, 9.0, *[1.0] * 5])[None, :, None]
    # pairs: (1 - 0)·0.5 = 0.5, (1 - 0.8)·0.9 = 0.18, (1 + 0.6)·0.9 = 1.44
    _, merged = Rule("ward").compress(bank, counts)
    assert merged[0, :3, 0].tolist() == [1.0, 10.0, 1.0]


def test_keep_keeps_the_one_that_stands_for_more_frames():
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 5.0], [-1.0, 0.0]])[None, :, None]
    for counts, kept in (((1, 1, 3, 1), 5.0), ((1, 3, 1, 1), 1.0), ((1, 2, 2, 1), 1.0)):
        given = torch.tensor([*map(float, counts)])[None, :, None]
        merged, total = Rule(fill="keep").compress(bank, given)
        assert merged[0, 1, 0].tolist() == [0.0, kept]
        assert total[0, 1, 0] == counts[1] + counts[2]


def test_only_the_columns_compared_decide():
    """The first column says 1 and 2 are alike, all four say 0 and 1 are."""
    bank = torch.tensor([[1.0, 9, 9, 9], [-1.0, 9, 9, 9], [-1.0, -9, 9, -9]])[None, :, None]
    counts = torch.ones(1, 3, 1)
    for compared, due in ((None, [2.0, 1.0]), (1, [1.0, 2.0])):
        _, merged = Rule(compared=compared).compress(bank, counts)
        assert merged[0, :, 0].tolist() == due
