"""The contract that every model family keeps, as checks of a model.

They use members of the protocol only, and ask the spec what a family has: policies, banks, riders,
frames in a feature, halo. The seconds of their clips are uneven, so that none can be guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from malmm_cli.errors import CapacityError
from malmm_cli.memory.spans import Slots
from malmm_cli.models.base import Context, Features, Memory, Trainable, VideoModel, Work
from malmm_cli.models.device import Clock
from malmm_cli.pipeline.chunks import encode_chunks, frames_in
from malmm_cli.settings import BANKS, FILLS, MEANS, MERGES, POLICIES, Decoding, MemoryOptions
from malmm_cli.types import Frame

PROMPTS = ["what does the video describe?", "how many?", "red circle?"]
ANSWERS = ["red", "circle red", "how"]
FEATURES = 9
LENGTH = 3
GREEDY = Decoding(max_new_tokens=5, beams=1, repetition_penalty=1.0)

Model = VideoModel[Any]
CHECKS: dict[str, Callable[[Model], None]] = {}


def check(function: Callable[[Model], None]) -> Callable[[Model], None]:
    CHECKS[function.__name__] = function
    return function


def clip(model: Model, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return frames of a video and their uneven seconds."""
    number = FEATURES * model.spec.frames_per_feature
    width, height = model.frame_size(320, 240)
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (number, height, width, 3), generator=generator).byte()
    steps = 0.1 + torch.arange(number, dtype=torch.float64) * 7 % 5
    return pixels, steps.cumsum(0) - steps[0]


def encoded(model: Model, seed: int = 1) -> Features:
    return model.encode(*clip(model, seed))


def options(model: Model) -> Iterator[MemoryOptions]:
    """Yield the ways to remember that a family has, but for those that it refuses."""
    for how in (*_ways(model), MemoryOptions(0, banks=model.spec.banks[0])):
        try:
            model.check(PROMPTS, how, GREEDY, FEATURES)
        except CapacityError:
            continue
        yield how


def _ways(model: Model) -> Iterator[MemoryOptions]:
    spec = model.spec
    first = MemoryOptions(LENGTH, spec.policies[0], spec.banks[0], spec.merges[0], spec.means[0])
    yield from (replace(first, policy=policy) for policy in spec.policies)
    yield from (replace(first, banks=banks) for banks in spec.banks[1:])
    yield from (replace(first, merge=merge) for merge in spec.merges[1:])
    yield from (replace(first, mean=mean) for mean in spec.means[1:])
    yield from (replace(first, fill=fill) for fill in spec.fills[1:])


def visual(model: Model) -> Iterator[MemoryOptions]:
    """Yield those that have a visual bank."""
    yield from (how for how in options(model) if how.keeps_visual)


def observed(
    model: Model,
    features: Features,
    prompts: Sequence[str],
    how: MemoryOptions,
    cuts: Sequence[int] = (0, FEATURES),
) -> Any:
    """Return a memory of some features, observed piece by piece."""
    memory = model.start(prompts, how, FEATURES)
    for begin, end in pairwise(cuts):
        model.observe(memory, features.some(slice(begin, end)))
    return memory


def changed(features: Features, other: Features, which: int) -> Features:
    """Return features, one of them that of another video; its seconds stay."""
    parts = [features.some(slice(k, k + 1)) for k in range(FEATURES)]
    there = other.some(slice(which, which + 1))
    parts[which] = there._replace(seconds=parts[which].seconds)
    return Features.joined(parts)


def close(got: Tensor, expected: Tensor, label: object = "") -> None:
    torch.testing.assert_close(
        got, expected, atol=2e-5, rtol=0, equal_nan=True, msg=lambda m: f"{label}: {m}"
    )


def same_context(got: Context, expected: Context, label: object = "") -> None:
    close(got.tokens, expected.tokens, label)
    assert got.extras.keys() == expected.extras.keys(), label
    for name, extra in expected.extras.items():
        close(got.extras[name], extra, f"{label}, {name}")
    assert list(got.warnings) == list(expected.warnings), label


def differs(one: Context, other: Context) -> bool:
    """Whether the language model is given something else."""
    if one.tokens.shape != other.tokens.shape:  # times have more digits, say
        return True
    return not torch.allclose(one.tokens, other.tokens, atol=1e-4) or any(
        not torch.allclose(one.extras[name].double(), other.extras[name].double(), atol=1e-4)
        for name in one.extras
    )


def same_slots(got: Slots, expected: Slots, label: object = "") -> None:
    close(got.rows, expected.rows, label)
    assert torch.equal(got.counts, expected.counts), label
    assert torch.equal(got.seconds, expected.seconds), label
    assert got.riders.keys() == expected.riders.keys(), label
    for name, rider in expected.riders.items():
        close(got.riders[name], rider, f"{label}, {name}")


def same_memory(got: Memory, expected: Memory, label: object = "") -> None:
    assert got.frames == expected.frames, label
    same_slots(got.slots(), expected.slots(), label)


@check
def the_spec_says_what_is_made(model: Model) -> None:
    spec, features = model.spec, encoded(model)
    assert {"caption", "ask"} <= spec.defaults.keys()
    assert set(spec.policies) <= set(POLICIES)
    assert set(spec.banks) <= set(BANKS)
    assert set(spec.merges) <= set(MERGES)
    assert set(spec.means) <= set(MEANS)
    assert set(spec.fills) <= set(FILLS)
    for settings in spec.defaults.values():
        assert settings.memory.policy in spec.policies
        assert settings.memory.banks in spec.banks
        assert settings.memory.merge in spec.merges
        assert settings.memory.mean in spec.means
        assert settings.memory.fill in spec.fills
    shapes = {name: list(tensor.shape) for name, tensor in features.as_dict().items()}
    assert shapes == spec.shapes(FEATURES, features.rows.shape[1])
    per, (_, seconds) = spec.frames_per_feature, clip(model)
    assert features.seconds.dtype == torch.float64
    assert torch.equal(features.seconds[:, 0], seconds[::per])
    assert torch.equal(features.seconds[:, 1], seconds[per - 1 :: per])


@check
def every_picture_of_a_feature_counts_and_no_other(model: Model) -> None:
    spec, (pixels, seconds) = model.spec, clip(model)
    before, middle = encoded(model), FEATURES // 2
    for frame in range(spec.frames_per_feature * middle, spec.frames_per_feature * (middle + 1)):
        other = pixels.clone()
        other[frame] = 255 - other[frame]
        after = model.encode(other, seconds)
        assert not torch.allclose(after.rows[middle], before.rows[middle], atol=1e-4), frame
        first = spec.features(max(frame - spec.halo + 1, 0)) - 1
        last = (frame + spec.halo) // spec.frames_per_feature
        for part in (slice(0, max(first, 0)), slice(last + 1, None)):
            for name, tensor in after.some(part).as_dict().items():
                close(tensor, before.some(part).as_dict()[name], f"frame {frame}, {name}")


@check
def encoding_in_pieces_is_encoding_whole(model: Model) -> None:
    (pixels, seconds), per = clip(model), model.spec.frames_per_feature
    for missing in range(per):
        number = len(pixels) - missing
        kept = torch.arange(len(pixels)).clamp(max=number - 1)  # the last one is repeated
        whole = model.encode(pixels[kept], seconds[kept])
        frames = [Frame(float(seconds[k]), 0.0, pixels[k].numpy()) for k in range(number)]
        for size in (1, 3, 4, 100):
            parts = list(encode_chunks(model, iter(frames), size, Clock(model.device)))
            for name, tensor in Features.joined(parts).as_dict().items():
                close(tensor, whole.as_dict()[name], f"{size} of {number} frames, {name}")
            if per <= 2:  # by seconds, one repeated frame cannot be told from two
                assert sum(frames_in(part, model.spec) for part in parts) == number
            assert max(len(part.rows) for part in parts) * per <= max(size, per)


@check
def observing_in_pieces_is_observing_whole(model: Model) -> None:
    features = encoded(model)
    for how in options(model):
        expected = observed(model, features, PROMPTS[:1], how)
        for cuts in ((0, 1, FEATURES), (0, 4, 5, FEATURES), tuple(range(FEATURES + 1))):
            got = observed(model, features, PROMPTS[:1], how, cuts)
            same_context(model.context(got), model.context(expected), how)
            same_memory(got, expected, how)


@check
def what_was_observed_may_be_overwritten(model: Model) -> None:
    for how in options(model):
        features = encoded(model)
        given = Features.joined([features])
        memory = observed(model, given, PROMPTS[:1], how)
        expected = model.context(memory)
        for name, tensor in given.as_dict().items():
            assert torch.equal(tensor, features.as_dict()[name]), "observing changed features"
        for tensor in (given.rows, *given.riders.values()):
            tensor.zero_()
        same_context(model.context(memory), expected, how)


@check
def reading_changes_nothing(model: Model) -> None:
    features = encoded(model)
    for how in options(model):
        memory = model.start(PROMPTS[:1], how, FEATURES)
        for index in range(FEATURES):
            model.observe(memory, features.some(slice(index, index + 1)))
            before, frames = memory.slots(), memory.frames
            first, again = model.context(memory), model.context(memory)
            assert torch.equal(first.tokens, again.tokens), how
            same_context(again, first, how)
            same_slots(memory.slots(), before, how)
            assert memory.frames == frames, how
        same_context(
            first, model.context(observed(model, features, PROMPTS[:1], how, (0, FEATURES))), how
        )


@check
def slots_partition_what_was_seen(model: Model) -> None:
    features = encoded(model)
    for how in options(model):
        memory = model.start(PROMPTS[:1], how, FEATURES)
        for index in range(FEATURES):
            model.observe(memory, features.some(slice(index, index + 1)))
            seen = index + 1
            assert memory.frames == seen, how
            slots = memory.slots()
            number = min(seen, how.length + 1) if how.keeps_visual else 1
            total = seen if how.keeps_visual and how.policy != "fifo" else number
            assert slots.rows.shape == (number, *features.rows.shape[1:]), how
            assert slots.counts.shape == slots.rows.shape[:2], how
            assert (slots.counts.dtype, slots.seconds.dtype) == (torch.int64, torch.float64)
            assert (slots.counts >= 1).all(), how
            assert (slots.counts[-1] == 1).all(), "the newest feature is a slot of its own"
            assert (slots.counts.sum(0) == total).all(), how
            end = seen - slots.counts.sum(0) + slots.counts.cumsum(0)
            first = features.seconds[end - slots.counts, 0]
            assert torch.equal(slots.seconds, torch.stack([first, features.seconds[end - 1, 1]], 2))


@check
def slots_are_means_of_what_they_stand_for(model: Model) -> None:
    features = encoded(model)
    for how in visual(model):
        memory = observed(model, features, PROMPTS[:1], how)
        roomy = replace(how, length=FEATURES)
        each = observed(model, features, PROMPTS[:1], roomy).slots()
        slots = memory.slots()
        assert (each.counts == 1).all()
        assert each.riders.keys() == slots.riders.keys() == model.spec.riders.keys()
        for name, rider in each.riders.items():
            close(rider, features.riders[name].float(), name)
        for name in ("rows", *each.riders):
            got, parts = (x.rows if name == "rows" else x.riders[name] for x in (slots, each))
            sums = torch.cat([torch.zeros_like(parts[:1]), parts.cumsum(0)])
            end = FEATURES - slots.counts.sum(0) + slots.counts.cumsum(0)
            patch, first = torch.arange(end.shape[1]), end - slots.counts
            mean = (sums[end, patch] - sums[first, patch]) / slots.counts[..., None]
            if how.policy == "uniform":
                close(got, parts[first, patch], f"{how}, {name}")
            elif how.fill == "keep":
                for k in patch.tolist():
                    spans = zip(got[:, k], first[:, k], end[:, k], strict=True)
                    for row, begin, stop in spans:
                        assert (row == parts[begin:stop, k]).all(-1).any(), f"{how}, {name}"
            elif how.mean == "weighted":
                close(got, mean, f"{how}, {name}")


@check
def two_slots_become_the_mean_that_was_asked_for(model: Model) -> None:
    features = encoded(model)
    for how in visual(model):
        if how.policy in ("fifo", "uniform"):  # which merge nothing, or take no mean
            continue
        memory = model.start((), how, FEATURES)
        for index in range(FEATURES):
            before = memory.slots() if index else None
            model.observe(memory, features.some(slice(index, index + 1)))
            after = memory.slots()
            if before is None or len(after.rows) != len(before.rows):
                continue
            left = (after.counts != before.counts).int().argmax(0).clamp(max=len(after.rows) - 2)
            patch = torch.arange(len(left))
            one, other = (before.counts[left + k, patch][:, None] for k in (0, 1))
            share = 0.5 if how.mean == "plain" else other / (one + other)
            share = (other > one).float() if how.fill == "keep" else share
            for name in ("rows", *after.riders):
                new, old = (x.rows if name == "rows" else x.riders[name] for x in (after, before))
                due = (1 - share) * old[left, patch] + share * old[left + 1, patch]
                close(new[left, patch], due, f"{how}, {name}")


@check
def whole_frames_are_merged_at_once_or_each_position_on_its_own(model: Model) -> None:
    features = encoded(model)
    for how in visual(model):
        if how.policy not in ("mbc", "random", "ward"):
            continue
        counts = observed(model, features, PROMPTS[:1], how).slots().counts
        alike = bool((counts == counts[:, :1]).all())
        assert alike == (how.merge == "frame" or counts.shape[1] == 1), how


@check
def what_is_random_depends_on_the_seed_only(model: Model) -> None:
    features = encoded(model)
    for how in visual(model):
        if how.policy == "random":
            seeds = (0, 1, 2, 3, 2**64 - 1)
            found = [
                [observed(model, features, (), replace(how, seed=seed)).slots() for _ in range(2)]
                for seed in seeds
            ]
            for seed, (one, again) in zip(seeds, found, strict=True):
                same_slots(again, one, f"seed {seed}")
            assert len({str(one.counts.tolist()) for one, _ in found}) > 1, "one for all seeds"


@check
def uniform_slots_begin_at_evenly_spaced_features(model: Model) -> None:
    features = encoded(model)
    for how in visual(model):
        if how.policy == "uniform":
            begins = [round(k * (FEATURES - 1) / LENGTH) for k in range(LENGTH + 1)]
            seconds = observed(model, features, PROMPTS[:1], how).slots().seconds[..., 0]
            due = features.seconds[begins, 0]
            assert len(seconds) == len(due), how
            assert torch.equal(seconds, due[:, None].expand_as(seconds)), how


@check
def slots_are_copies_and_know_nothing_of_prompts(model: Model) -> None:
    features = encoded(model)
    for how in options(model):
        memory = observed(model, features, PROMPTS[:1], how, (0, 6))
        expected, context = memory.slots(), model.context(memory)
        same_slots(observed(model, features, (), how, (0, 6)).slots(), expected, how)
        same_slots(observed(model, features, PROMPTS, how, (0, 6)).slots(), expected, how)
        slots = memory.slots()
        for tensor in (slots.rows, slots.counts, slots.seconds, *slots.riders.values()):
            tensor.zero_()
        same_slots(memory.slots(), expected, how)
        same_context(model.context(memory), context, how)


@check
def a_copy_is_independent(model: Model) -> None:
    features = encoded(model)
    for how in options(model):
        memory = observed(model, features, PROMPTS[:1], how, (0, 5))
        copy, context, slots = memory.copy(), model.context(memory), memory.slots()
        same_memory(copy, memory, how)
        model.observe(memory, features.some(slice(5, FEATURES)))
        assert copy.frames == 5
        same_slots(copy.slots(), slots, how)
        same_context(model.context(copy), context, how)
        model.observe(copy, features.some(slice(5, FEATURES)))
        same_memory(copy, memory, how)
        same_context(model.context(copy), model.context(memory), how)


@check
def two_videos_do_not_mix(model: Model) -> None:
    videos = [encoded(model), encoded(model, seed=2)]
    for how in options(model):
        both = [model.start(PROMPTS[:1], how, FEATURES) for _ in videos]
        for index in range(FEATURES):
            for memory, video in zip(both, videos, strict=True):
                model.observe(memory, video.some(slice(index, index + 1)))
        found = [(model.context(memory), memory.slots()) for memory in both]
        for (context, slots), video in zip(found, videos, strict=True):
            expected = observed(model, video, PROMPTS[:1], how)
            same_context(context, model.context(expected), how)
            same_slots(slots, expected.slots(), how)


@check
def each_policy_sees_what_it_should(model: Model) -> None:
    features, other = encoded(model), encoded(model, seed=2)
    for how in options(model):
        before = model.context(observed(model, features, PROMPTS[:1], how))
        early = observed(model, changed(features, other, 0), PROMPTS[:1], how)
        late = observed(model, changed(features, other, FEATURES - 1), PROMPTS[:1], how)
        assert differs(model.context(late), before), f"{how}: the newest feature changes nothing"
        if how.policy == "fifo" and how.keeps_queries:
            continue  # a query bank's slots depend on what was dropped before them
        keeps = how.gives_every_frame or how.policy == "average" or how.keeps_banks
        sees = keeps and how.policy != "fifo" and (how.banks != "none" or not how.keeps_banks)
        if how.fill == "mean":  # of features that are kept whole, the first need not be one
            assert differs(model.context(early), before) == sees, f"{how}: the first feature"
        for name in model.spec.riders:
            riders = {**features.riders, name: features.riders[name] + 1}
            ridden = observed(model, features._replace(riders=riders), PROMPTS[:1], how)
            assert differs(model.context(ridden), before), f"{how}: {name} changes nothing"


@check
def many_prompts_are_one_by_one(model: Model) -> None:
    features = encoded(model)
    for how in options(model):
        together = model.context(observed(model, features, PROMPTS, how))
        parts = [model.context(observed(model, features, [p], how)) for p in PROMPTS]
        assert len(together) == len(PROMPTS)
        assert together.is_finite()
        same_context(together, Context.joined(parts), how)
        texts = model.generate(together, PROMPTS, GREEDY)
        each = [model.generate(part, [p], GREEDY) for part, p in zip(parts, PROMPTS, strict=True)]
        assert texts == [text for (text,) in each], how
        scores = model.score(together, PROMPTS, ANSWERS)
        asked = zip(parts, PROMPTS, ANSWERS, strict=True)
        single = torch.cat([model.score(part, [prompt], [a]) for part, prompt, a in asked])
        assert (scores.shape, scores.dtype) == ((len(PROMPTS),), torch.float32)
        close(scores, single, how)
        some = [2, 0]
        chosen = (together.chosen(some), *([x[k] for k in some] for x in (PROMPTS, ANSWERS)))
        close(model.score(*chosen), scores[some], how)


@check
def texts_hang_on_the_video(model: Model) -> None:
    how = next(options(model))
    pixels, seconds = clip(model)
    colours = torch.tensor([[x, y, z] for x in (0, 255) for y in (0, 255) for z in (0, 255)])
    videos = (model.encode(colour.byte().expand_as(pixels), seconds) for colour in colours)
    contexts = [model.context(observed(model, video, PROMPTS[:1], how)) for video in videos]
    assert len({model.generate(one, PROMPTS[:1], GREEDY)[0][0] for one in contexts}) > 1


@check
def there_are_as_many_candidates_as_beams(model: Model) -> None:
    how = next(options(model))
    context = model.context(observed(model, encoded(model), PROMPTS, how))
    for beams in (1, 2):
        found = model.generate(context, PROMPTS, replace(GREEDY, beams=beams))
        assert [len(candidates) for candidates in found] == [beams] * len(PROMPTS)


@check
def scores_hang_on_the_video_the_prompt_and_the_answer(model: Model) -> None:
    how = next(options(model))
    videos = (encoded(model), encoded(model, seed=2))
    first, other = (model.context(observed(model, video, PROMPTS[:1], how)) for video in videos)
    one, two = PROMPTS[:2]
    asked = [(first, one, "red"), (other, one, "red"), (first, two, "red"), (first, one, "circle")]
    scores = [float(model.score(context, [prompt], [answer])) for context, prompt, answer in asked]
    assert len(set(scores)) == 4
    assert max(scores) <= 0


@check
def a_restored_memory_holds_the_same(model: Model) -> None:
    features = encoded(model)
    for how in visual(model):
        for seen in (1, 2, FEATURES):
            kept = observed(model, features, (), how, (0, seen))
            restored = model.restore(PROMPTS[:1], how, kept.slots(), kept.frames)
            same_memory(restored, kept, how)
            same_memory(restored.copy(), kept, how)
            context = model.context(restored)
            assert context.is_finite(), how
            same_memory(restored, kept, how)
            if not how.keeps_queries:  # query banks are rebuilt from the slots
                expected = observed(model, features, PROMPTS[:1], how, (0, seen))
                same_context(context, model.context(expected), how)


@check
def slots_that_stay_features_say_when_these_are_shown(model: Model) -> None:
    features = encoded(model)
    for how in visual(model):
        slots = observed(model, features, (), how).slots()
        if slots.shown is None:
            continue
        assert (slots.shown.shape, slots.shown.dtype) == ((len(slots.rows), 2), torch.float64)
        which = [features.seconds.tolist().index(pair) for pair in slots.shown.tolist()]
        for name, part in {"rows": slots.rows, **slots.riders}.items():
            made = features.rows if name == "rows" else features.riders[name]
            assert torch.equal(part, made[which].float()), f"{how}, {name}"
        assert (slots.shown[:, :1] >= slots.seconds[..., 0]).all(), how
        assert (slots.shown[:, 1:] <= slots.seconds[..., 1]).all(), how
        restored = model.restore((), how, slots, FEATURES).slots()
        assert restored.shown is not None, how
        assert torch.equal(restored.shown, slots.shown), how
        unknown = model.restore((), how, slots._replace(shown=None), FEATURES)
        assert unknown.slots().shown is None, how


@check
def a_restored_memory_goes_on(model: Model) -> None:
    if not model.spec.extends:
        return
    features = encoded(model)
    for how in visual(model):
        for seen in (1, 2, 5):
            whole = model.start((), how)
            model.observe(whole, features.some(slice(0, seen)))
            restored = model.restore((), how, whole.slots(), whole.frames)
            for memory in (whole, restored):
                model.observe(memory, features.some(slice(seen, FEATURES)))
            same_memory(restored, whole, how)
            got, due = (memory.slots().shown for memory in (restored, whole))
            assert (got is None) == (due is None), how
            assert due is None or torch.equal(got, due), how


@check
def what_does_not_fit_is_refused_before_a_frame_is_read(model: Model) -> None:
    limit = model.spec.context
    for how in visual(model):
        model.check(PROMPTS, how, GREEDY, 10**6)
        model.check((), how, GREEDY, 10**6)
    if limit is not None:
        longest = Decoding(max_new_tokens=limit)
        with pytest.raises(CapacityError, match=str(limit)):
            model.check(PROMPTS, next(options(model)), longest, 1)
        with pytest.raises(CapacityError):
            model.check(PROMPTS, MemoryOptions(0, banks=model.spec.banks[0]), GREEDY, limit)


@check
def skipped_features_keep_their_places(model: Model) -> None:
    features = encoded(model)
    rest = features.some(slice(4, FEATURES))
    for how in options(model):
        memory = model.start(PROMPTS[:1], how, FEATURES, skipped=4)
        model.observe(memory, rest)
        assert memory.frames == FEATURES, how
        slots = memory.slots()
        assert torch.equal(slots.seconds[-1, 0], features.seconds[-1]), how
        pieces = model.start(PROMPTS[:1], how, FEATURES, skipped=4)
        for begin, end in ((0, 1), (1, 3), (3, FEATURES - 4)):
            model.observe(pieces, rest.some(slice(begin, end)))
        same_memory(pieces, memory, how)
        same_context(model.context(pieces), model.context(memory), how)
        if how.keeps_visual and how.policy != "fifo":
            assert (slots.seconds[0, :, 0] == features.seconds[4, 0]).all(), how


@check
def the_number_of_features_may_be_unknown(model: Model) -> None:
    features = encoded(model)
    for how in options(model):
        memory = model.start(PROMPTS[:1], how)
        model.observe(memory, features)
        known = observed(model, features, PROMPTS[:1], how)
        assert memory.frames == known.frames, how
        assert torch.equal(memory.slots().seconds[-1], known.slots().seconds[-1]), how
        assert model.context(memory).is_finite(), how


@check
def training_forms_agree(model: Model) -> None:
    if not isinstance(model, Trainable):
        return
    features, given = encoded(model), model.encoder().encode(*clip(model))
    for how in reversed([*options(model)]):
        context = model.training_context([given], PROMPTS, how, position_gradient="last")
        same_context(context, model.context(observed(model, features, PROMPTS, how)), how)
    assert model.trainable()
    assert model.loss(context, PROMPTS, ANSWERS).isfinite()
    assert model.text_tokens(PROMPTS[0], ["red"]) > model.text_tokens(PROMPTS[0])
    assert model.answer_tokens("red") > 0
    assert model.visual_tokens(how, FEATURES) >= context.tokens.shape[1]


@check
def sizes_are_given(model: Model) -> None:
    work = [Work("frame"), Work("feature"), Work("prompt", PROMPTS, features=5, chunk=5)]
    work.append(Work("answer", PROMPTS, context=32))
    assert all(model.bytes_for(one) > 0 for one in work)
