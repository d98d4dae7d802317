"""The contract notices what a family can get wrong: each bug here is planted in the toy family."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from helpers import toy_family
from helpers.contract import CHECKS
from helpers.toy_family import SPEC, Slot, Toy, ToyMemory, merged

from malmm_cli.memory.rule import Rule
from malmm_cli.memory.spans import spans
from malmm_cli.models.base import Context, Features
from malmm_cli.pipeline import chunks


@dataclass(frozen=True)
class Bug:
    """A `place` whose function is replaced by what `break_it` makes of it, and who notices."""

    place: tuple[object, str]
    break_it: Callable
    noticed_by: str


BUGS: dict[str, Bug] = {}


def bug(owner: object, name: str, noticed_by: str) -> Callable[[Callable], Callable]:
    def add(break_it: Callable) -> Callable:
        BUGS[break_it.__name__] = Bug((owner, name), break_it, noticed_by)
        return break_it

    return add


def noticed() -> set[str]:
    """Return the checks that the toy family fails now."""
    failed = set()
    for name, check in CHECKS.items():
        try:
            check(Toy())
        except (AssertionError, pytest.fail.Exception, KeyError):
            failed.add(name)
    return failed


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_is_noticed(name, monkeypatch, one_thread):
    planted = BUGS[name]
    owner, attribute = planted.place
    monkeypatch.setattr(owner, attribute, planted.break_it(getattr(owner, attribute)))
    assert planted.noticed_by in noticed()


def test_without_a_bug_nothing_is_noticed(one_thread):
    assert not noticed()


# Features


@bug(Toy, "picture", "every_picture_of_a_feature_counts_and_no_other")
def the_second_picture_is_ignored(right):
    return lambda self, cells, place: right(self, cells, place) * (place != 2)


@bug(Toy, "encode", "every_picture_of_a_feature_counts_and_no_other")
def features_depend_on_the_whole_video(right):
    def encode(self, frames, seconds):
        features = right(self, frames, seconds)
        return features._replace(rows=features.rows + features.rows.mean(0))

    return encode


@bug(Toy, "encode", "the_spec_says_what_is_made")
def a_feature_ends_with_its_first_picture(right):
    def encode(self, frames, seconds):
        features = right(self, frames, seconds)
        return features._replace(seconds=features.seconds[:, :1].repeat(1, 2))

    return encode


@bug(Toy, "encode", "the_spec_says_what_is_made")
def a_rider_is_missing(right):
    return lambda *args: right(*args)._replace(riders={})


@bug(Toy, "spec", "the_spec_says_what_is_made")
def a_rider_has_another_width(right):
    return replace(right, riders={"deep": 5})


@bug(Toy, "spec", "encoding_in_pieces_is_encoding_whole")
def the_spec_has_no_halo(right):
    return replace(right, halo=0)


@bug(chunks, "margin", "encoding_in_pieces_is_encoding_whole")
def chunks_come_without_a_halo(right):
    return lambda spec: 0


@bug(chunks, "_filled", "encoding_in_pieces_is_encoding_whole")
def the_last_feature_is_filled_with_black(right):
    def filled(frames, per):
        frames = list(frames)
        black = replace(frames[-1], pixels=frames[-1].pixels * 0)
        yield from [*frames, *[black] * (-len(frames) % per)]

    return filled


# Memory


@bug(ToyMemory, "copy", "a_copy_is_independent")
def copies_share_seconds(right):
    return lambda self: replace(self, bank=copy.deepcopy(self.bank))


@bug(ToyMemory, "copy", "a_copy_is_independent")
def copies_share_the_bank(right):
    return lambda self: replace(self, seconds=list(self.seconds))


@bug(ToyMemory, "spans", "slots_partition_what_was_seen")
def seconds_are_invented(right):
    def invented(self, counts):
        ends = torch.linspace(0, float(self.seconds[-1][-1, 1]), len(counts) + 1).double()
        pairs = torch.stack([ends[:-1], ends[1:]], 1)
        return pairs[:, None].repeat(1, counts.shape[1], 1)

    return invented


def _from_the_start(policy):
    def seconds_of_the_first(right):
        def wrong(self, counts):
            seen = torch.cat(self.seconds)
            some = seen[: int(counts[:, 0].sum())] if self.options.policy == policy else seen
            return spans(counts, some)

        return wrong

    seconds_of_the_first.__name__ = f"{policy}_has_the_seconds_of_the_first_features"
    return seconds_of_the_first


for _policy in ("fifo", "average", "last"):
    bug(ToyMemory, "spans", "slots_partition_what_was_seen")(_from_the_start(_policy))


@bug(ToyMemory, "slots", "slots_partition_what_was_seen")
def counts_are_int32(right):
    return lambda self: right(self)._replace(counts=right(self).counts.int())


@bug(ToyMemory, "slots", "slots_partition_what_was_seen")
def seconds_are_float32(right):
    return lambda self: right(self)._replace(seconds=right(self).seconds.float())


@bug(ToyMemory, "slots", "slots_are_copies_and_know_nothing_of_prompts")
def slots_are_no_copies(right):
    def slots(self):
        found = right(self)
        rows = self.newest.row[None] if len(found.rows) == 1 else found.rows
        return found._replace(rows=rows)

    return slots


@bug(ToyMemory, "slots", "slots_partition_what_was_seen")
def the_newest_feature_is_merged_at_once(right):
    def slots(self):
        kept = copy.deepcopy(self)
        if len(kept.bank) > 1:
            kept.newest = merged(kept.bank.pop(), kept.newest)
        return right(kept)

    return slots


@bug(ToyMemory, "observe", "slots_partition_what_was_seen")
def frames_count_pictures(right):
    def observe(self, slot):
        right(self, slot)
        self.frames += 1

    return observe


@bug(ToyMemory, "compress", "slots_partition_what_was_seen")
def the_bank_grows(right):
    return lambda self: right(self) if len(self.bank) > self.options.length + 1 else None


@bug(ToyMemory, "compress", "slots_are_means_of_what_they_stand_for")
def fifo_drops_the_newest(right):
    return lambda self: self.bank.pop() if self.options.policy == "fifo" else right(self)


@bug(ToyMemory, "compress", "slots_are_means_of_what_they_stand_for")
def slots_that_are_no_neighbours_are_merged(right):
    def compress(self):
        if self.options.policy == "fifo":
            right(self)
        else:
            last = self.bank.pop()
            self.bank[0] = merged(self.bank[0], last)

    return compress


@bug(toy_family, "merged", "slots_are_means_of_what_they_stand_for")
def riders_are_not_merged(right):
    return lambda a, b, rule=None: replace(right(a, b, rule), rider=a.rider)


@bug(toy_family, "merged", "slots_are_means_of_what_they_stand_for")
def riders_are_merged_without_weights(right):
    return lambda a, b, rule=None: replace(right(a, b, rule), rider=(a.rider + b.rider) / 2)


@bug(toy_family, "merged", "slots_are_means_of_what_they_stand_for")
def rows_are_merged_without_weights(right):
    return lambda a, b, rule=None: replace(right(a, b, rule), row=(a.row + b.row) / 2)


@bug(toy_family, "merged", "two_slots_become_the_mean_that_was_asked_for")
def every_mean_is_weighted(right):
    return lambda a, b, rule=None: right(a, b, rule and replace(rule, mean="weighted"))


@bug(toy_family, "merged", "slots_are_means_of_what_they_stand_for")
def uniform_takes_a_mean(right):
    return lambda a, b, rule=None: right(a, b, rule and replace(rule, policy="mbc"))


@bug(ToyMemory, "slots", "whole_frames_are_merged_at_once_or_each_position_on_its_own")
def positions_are_merged_on_their_own(right):
    def slots(self):
        found = right(self)
        if len(found.counts) > 2:
            found.counts[:2, 0] = found.counts[:2, 0].flip(0)
            found.counts[0, 1] += 1
        return found

    return slots


@bug(Rule, "pair", "what_is_random_depends_on_the_seed_only")
def every_seed_is_the_same(right):
    return lambda self, counts: right(replace(self, seed=0), counts)


@bug(Rule, "pair", "what_is_random_depends_on_the_seed_only")
def what_was_drawn_before_counts(right):
    drawn: list[int] = []

    def pair(self, counts):
        drawn.append(1)
        return right(replace(self, seed=self.seed + len(drawn)), counts)

    return pair


@bug(Toy, "start", "uniform_slots_begin_at_evenly_spaced_features")
def the_number_of_features_is_not_used(right):
    return lambda self, prompts, options, total=None, skipped=0: right(
        self, prompts, options, None, skipped
    )


@bug(Toy, "start", "two_videos_do_not_mix")
def videos_share_a_bank(right):
    bank: list[Slot] = []

    def start(self, prompts, options, total=None, skipped=0):
        memory = right(self, prompts, options, total, skipped)
        if prompts:
            bank.clear()  # nothing is seen of it while one video comes after the other
            memory.bank = bank
        return memory

    return start


@bug(Toy, "start", "skipped_features_keep_their_places")
def skipped_features_are_not_counted(right):
    return lambda self, prompts, options, total=None, skipped=0: right(self, prompts, options)


@bug(Toy, "start", "the_number_of_features_may_be_unknown")
def an_unknown_number_is_none_at_all(right):
    def start(self, prompts, options, total=None, skipped=0):
        return right(self, prompts, options, total, skipped if total else 1)

    return start


@bug(Toy, "observe", "observing_in_pieces_is_observing_whole")
def only_the_last_of_a_piece_is_observed(right):
    return lambda self, memory, features: right(self, memory, features.some(slice(-1, None)))


@bug(Toy, "observe", "what_was_observed_may_be_overwritten")
def features_are_kept_without_a_copy(right):
    def observe(self, memory, features):
        right(self, memory, features)
        memory.newest = Slot(features.rows[-1], features.riders["deep"][-1])

    return observe


@bug(Toy, "observe", "what_was_observed_may_be_overwritten")
def features_are_changed(right):
    def observe(self, memory, features):
        right(self, memory, features)
        features.riders["deep"].mul_(2)

    return observe


# Context


@bug(Toy, "context", "reading_changes_nothing")
def reading_stores_the_newest(right):
    def context(self, memory):
        memory.observe(memory.newest)
        return right(self, memory)

    return context


@bug(Toy, "context", "each_policy_sees_what_it_should")
def only_the_newest_is_read(right):
    return lambda self, memory: right(self, replace(memory, bank=[]))


@bug(Toy, "context", "each_policy_sees_what_it_should")
def riders_are_not_read(right):
    def context(self, memory):
        given = right(self, memory)
        deep = torch.zeros_like(given.extras["deep"])
        return replace(given, extras={**given.extras, "deep": deep})

    return context


@bug(ToyMemory, "store", "each_policy_sees_what_it_should")
def the_policy_last_remembers(right):
    def store(self, slot):
        self.bank.append(slot) if self.options.policy == "last" else right(self, slot)

    return store


@bug(Toy, "context", "many_prompts_are_one_by_one")
def every_prompt_has_the_context_of_the_first(right):
    def context(self, memory):
        first = right(self, replace(memory, prompts=memory.prompts[:1]))
        return first.chosen([0] * len(memory.prompts))

    return context


@bug(Toy, "state", "many_prompts_are_one_by_one")
def the_mask_is_not_read(right):
    def state(self, context):
        everything = torch.ones_like(context.extras["mask"])
        return right(self, replace(context, extras={**context.extras, "mask": everything}))

    return state


@bug(Context, "chosen", "many_prompts_are_one_by_one")
def extras_are_those_of_the_first_prompts(right):
    def chosen(self, prompts):
        extras = {name: extra[: len(prompts)] for name, extra in self.extras.items()}
        return replace(right(self, prompts), extras=extras)

    return chosen


@bug(Toy, "score", "scores_hang_on_the_video_the_prompt_and_the_answer")
def the_answer_is_not_read(right):
    return lambda self, context, prompts, answers: right(self, context, prompts, prompts)


@bug(Toy, "state", "scores_hang_on_the_video_the_prompt_and_the_answer")
def the_video_is_not_read(right):
    return lambda self, context: torch.ones(len(context), SPEC.width)


# Restoring, and what is refused


@bug(Toy, "restore", "a_restored_memory_holds_the_same")
def restoring_loses_frames(right):
    return lambda *args: replace(right(*args), frames=0)


@bug(Toy, "restore", "a_restored_memory_holds_the_same")
def restoring_loses_counts(right):
    def restore(self, prompts, options, slots, features):
        memory = right(self, prompts, options, slots, features)
        for slot in memory.bank:
            slot.count = 1
        return memory

    return restore


@bug(Toy, "restore", "a_restored_memory_holds_the_same")
def restoring_loses_riders(right):
    def restore(self, prompts, options, slots, features):
        riders = {name: torch.zeros_like(rider) for name, rider in slots.riders.items()}
        return right(self, prompts, options, slots._replace(riders=riders), features)

    return restore


@bug(Toy, "check", "what_does_not_fit_is_refused_before_a_frame_is_read")
def nothing_is_refused(right):
    return lambda *args: None


@bug(Features, "some", "observing_in_pieces_is_observing_whole")
def riders_of_a_part_are_those_of_the_start(right):
    def some(self, which):
        part = right(self, which)
        start = {name: rider[: len(part.rows)] for name, rider in self.riders.items()}
        return part._replace(riders=start)

    return some


@bug(Toy, "generate", "texts_hang_on_the_video")
def every_text_is_the_same(right):
    return lambda self, context, prompts, decoding, on_text=None: [
        ["red", "blue"][: decoding.beams] for _ in prompts
    ]


@bug(Toy, "generate", "there_are_as_many_candidates_as_beams")
def only_the_best_candidate_is_returned(right):
    return lambda self, *given: [candidates[:1] for candidates in right(self, *given)]


@bug(Toy, "score", "scores_hang_on_the_video_the_prompt_and_the_answer")
def the_prompt_is_not_scored(right):
    return lambda self, context, prompts, answers: right(
        self, context, ["x"] * len(prompts), answers
    )
