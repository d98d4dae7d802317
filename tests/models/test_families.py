"""The contract that every model family keeps, on a tiny random instance of each."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from malmm_cli.checkpoints import layout
from malmm_cli.errors import CapacityError
from malmm_cli.models import registry
from malmm_cli.models.base import Context, Features, Trainable, VideoModel, Work
from malmm_cli.models.instructblip import random_init
from malmm_cli.models.instructblip.load import load
from malmm_cli.settings import Decoding, MemoryOptions

WORDS = ["what", "does", "the", "video", "describe", "red", "circle", "how", "many", "short"]
PROMPTS = ["what does the video describe?", "how many?", "red circle?"]
FRAMES = 9
GREEDY = Decoding(max_new_tokens=5, beams=1, repetition_penalty=1.0)


def instructblip(folder: Path) -> VideoModel:
    random_init.write(folder, random_init.tiny_config("vicuna"), WORDS, positions=6)
    return load(folder, dtype=torch.float32)


FAMILIES: dict[str, Callable[[Path], VideoModel]] = {"instructblip": instructblip}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory):
    torch.manual_seed(0)
    return FAMILIES[request.param](tmp_path_factory.mktemp("family") / request.param)


def frames(model, seed=1, count=FRAMES):
    width, height = model.frame_size(320, 240)
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, height, width, 3), generator=generator).byte()
    return pixels, torch.arange(count, dtype=torch.float64) / 2


@pytest.fixture
def features(model):
    return model.encode(*frames(model))


def some(features, begin, end):
    riders = {name: rider[begin:end] for name, rider in features.riders.items()}
    return Features(features.rows[begin:end], features.seconds[begin:end], riders)


def options(model):
    for policy in model.spec.policies:
        yield MemoryOptions(3, policy)
    for banks in model.spec.banks:
        yield MemoryOptions(3, banks=banks)
    yield MemoryOptions(0)


def seen(model, features, prompts, how, cuts=(0, FRAMES)):
    memory = model.start(prompts, how, FRAMES)
    for begin, end in pairwise(cuts):
        model.observe(memory, some(features, begin, end))
    return memory


def close(got, due):
    torch.testing.assert_close(got, due, atol=2e-5, rtol=0)


def test_every_registered_family_is_tested():
    assert FAMILIES.keys() == set(registry.FAMILIES.values())
    assert registry.FAMILIES.keys() == layout.FAMILIES.keys()


def test_the_spec_says_what_is_made(model, features):
    spec = model.spec
    assert spec.family in FAMILIES
    assert features.rows.shape == (FRAMES // spec.frames_per_feature, spec.patches, spec.width)
    assert features.seconds.shape == (len(features.rows), 2)
    assert {"caption", "ask"} <= spec.defaults.keys()


def test_encoding_in_pieces_is_encoding_whole(model, features):
    pixels, seconds = frames(model)
    parts = [model.encode(pixels[a:b], seconds[a:b]) for a, b in ((0, 1), (1, 5), (5, FRAMES))]
    close(torch.cat([part.rows for part in parts]), features.rows)
    assert torch.equal(torch.cat([part.seconds for part in parts]), features.seconds)


def test_observing_in_pieces_is_observing_whole(model, features):
    for how in options(model):
        due = model.context(seen(model, features, PROMPTS[:1], how))
        for cuts in ((0, 1, FRAMES), (0, 4, 5, FRAMES), tuple(range(FRAMES + 1))):
            got = model.context(seen(model, features, PROMPTS[:1], how, cuts))
            close(got.tokens, due.tokens)


def test_reading_changes_nothing(model, features):
    for how in options(model):
        memory = model.start(PROMPTS[:1], how, FRAMES)
        for index in range(FRAMES):
            model.observe(memory, some(features, index, index + 1))
            first, again = model.context(memory), model.context(memory)
            assert torch.equal(first.tokens, again.tokens), how
        due = model.context(seen(model, features, PROMPTS[:1], how))
        close(first.tokens, due.tokens)


def test_counts_sum_to_frames_and_seconds_partition_time(model, features):
    memory = model.start(PROMPTS[:1], MemoryOptions(3), FRAMES)
    for index in range(FRAMES):
        model.observe(memory, some(features, index, index + 1))
        rows, counts, seconds = memory.slots()
        assert rows.shape[:2] == counts.shape == seconds.shape[:2]
        assert memory.frames == index + 1
        assert (counts.sum(0) == index + 1).all()
        assert len(rows) == min(index + 1, 4)
        step = features.seconds[1, 0] - features.seconds[0, 0]
        assert (seconds[0, :, 0] == features.seconds[0, 0]).all()
        assert (seconds[-1, :, 1] == features.seconds[index, 1]).all()
        assert (seconds[1:, :, 0] - seconds[:-1, :, 1] == step).all()
        spans = (seconds[..., 1] - seconds[..., 0]) / step + 1
        assert torch.equal(spans.round().long(), counts)


def test_the_plain_form_of_a_memory_has_the_same_slots(model, features):
    memory = seen(model, features, PROMPTS[:1], MemoryOptions(3))
    for mine, theirs in zip(memory.plain().slots(), memory.slots(), strict=True):
        assert torch.equal(mine, theirs)


def test_slots_are_means_of_what_they_stand_for(model, features):
    rows, counts, _ = seen(model, features, PROMPTS[:1], MemoryOptions(3)).slots()
    whole = model.start((), MemoryOptions(FRAMES), FRAMES)
    model.observe(whole, features)
    close((rows * counts[..., None]).sum(0), whole.slots().rows.sum(0))


def test_a_copy_is_independent(model, features):
    for how in options(model):
        memory = seen(model, features, PROMPTS[:1], how, (0, 5))
        copy, due = memory.copy(), model.context(memory)
        model.observe(memory, some(features, 5, FRAMES))
        close(model.context(copy).tokens, due.tokens)
        model.observe(copy, some(features, 5, FRAMES))
        close(model.context(copy).tokens, model.context(memory).tokens)


def test_two_videos_do_not_mix(model, features):
    other = model.encode(*frames(model, seed=2))
    both = [model.start(PROMPTS[:1], MemoryOptions(3), FRAMES) for _ in range(2)]
    for index in range(FRAMES):
        for memory, video in zip(both, (features, other), strict=True):
            model.observe(memory, some(video, index, index + 1))
    for memory, video in zip(both, (features, other), strict=True):
        due = model.context(seen(model, video, PROMPTS[:1], MemoryOptions(3)))
        close(model.context(memory).tokens, due.tokens)


def test_many_prompts_are_one_by_one(model, features):
    together = model.context(seen(model, features, PROMPTS, MemoryOptions(3)))
    parts = [model.context(seen(model, features, [p], MemoryOptions(3))) for p in PROMPTS]
    assert len(together) == len(PROMPTS)
    close(together.tokens, Context.joined(parts).tokens)
    texts = model.generate(together, PROMPTS, GREEDY)
    alone = [model.generate(part, [p], GREEDY) for part, p in zip(parts, PROMPTS, strict=True)]
    assert texts == [text for (text,) in alone]
    answers = ["red", "circle red", "how"]
    scores = model.score(together, PROMPTS, answers)
    single = [
        model.score(part, [prompt], [answer])
        for part, prompt, answer in zip(parts, PROMPTS, answers, strict=True)
    ]
    assert scores.shape == (3,)
    close(scores, torch.cat(single))


def test_some_prompts_of_a_context():
    plain = Context(torch.arange(6.0).view(3, 2, 1))
    assert torch.equal(plain.chosen([2, 0]).tokens, plain.tokens[[2, 0]])
    warned = Context(plain.tokens, [("a",), (), ("c",)])
    assert warned.chosen([2, 1]).warnings == [("c",), ()]


def test_a_restored_memory_holds_the_same(model, features):
    how = MemoryOptions(3, banks="visual")
    memory = seen(model, features, (), how, (0, 6))
    restored = model.restore(PROMPTS[:1], how, memory.slots(), memory.frames)
    due = model.context(seen(model, features, PROMPTS[:1], how, (0, 6)))
    close(model.context(restored).tokens, due.tokens)
    for mine, theirs in zip(restored.slots(), memory.slots(), strict=True):
        close(mine, theirs)


def test_what_does_not_fit_is_refused_before_a_frame_is_read(model):
    limit = model.spec.context
    if limit is None:
        pytest.skip("its language model reads any number of tokens")
    model.check(PROMPTS, MemoryOptions(3), GREEDY, 10**6)
    with pytest.raises(CapacityError, match=str(limit)):
        model.check(PROMPTS, MemoryOptions(3), Decoding(max_new_tokens=limit), 1)
    with pytest.raises(CapacityError):
        model.check(PROMPTS, MemoryOptions(0), GREEDY, limit)


def test_skipped_frames_keep_their_places(model, features):
    memory = model.start(PROMPTS[:1], MemoryOptions(FRAMES), FRAMES, skipped=4)
    model.observe(memory, some(features, 4, FRAMES))
    assert memory.frames == FRAMES


def test_training_forms_agree(model, features):
    if not isinstance(model, Trainable):
        pytest.skip("it cannot be trained")
    how = MemoryOptions(3)
    rows = features.rows[None].float()
    tokens = model.tokens_for_training(rows, PROMPTS, how, position_gradient="last")
    close(tokens, model.context(seen(model, features, PROMPTS, how)).tokens)
    assert model.trainable().keys() <= model.state_dict().keys()
    assert model.loss(tokens, PROMPTS, ["red", "how", "many"]).isfinite()
    assert model.text_tokens(PROMPTS[0], ["red"]) > model.text_tokens(PROMPTS[0])
    assert model.visual_tokens(how, 5) == model.visual_tokens(how, 50) == tokens.shape[1]


def test_sizes_are_told(model):
    work = [Work("frame"), Work("feature"), Work("prompt", PROMPTS, frames=5, chunk=5)]
    work.append(Work("answer", PROMPTS, context=32))
    assert all(model.bytes_for(one) > 0 for one in work)
