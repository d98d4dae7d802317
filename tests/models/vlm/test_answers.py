"""One prefix for many questions: the cache is read once, and gives what the whole prompt gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from malmm_cli.models.vlm import prefix
from malmm_cli.settings import Decoding, MemoryOptions

QUESTIONS = ["what does the video describe?", "how many?", "red circle?", "how short is the red?"]
GREEDY = Decoding(max_new_tokens=8, beams=1, repetition_penalty=1.0)
HOW = MemoryOptions(6, banks="visual", merge="frame")


def context_of(model, questions=QUESTIONS, seed: int = 0, frames: int = 8):
    width, height = model.frame_size(96, 96)
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (frames, height, width, 3), generator=generator).byte()
    memory = model.start(questions, HOW)
    model.observe(memory, model.encode(pixels, torch.arange(float(frames)).double()))
    return model.context(memory)


@pytest.fixture
def reads(model, monkeypatch):
    """How many tokens the language model was given each time."""
    lengths = []
    language = model.adapter.language(model.net)
    right = language.forward

    def counted(*args, inputs_embeds=None, **how):
        lengths.append(inputs_embeds.shape[1] if inputs_embeds is not None else 1)
        return right(*args, inputs_embeds=inputs_embeds, **how)

    monkeypatch.setattr(language, "forward", counted)
    return lengths


def test_the_prefix_is_read_once_for_all_questions(model, reads, one_thread):
    context = context_of(model)
    whole = context.tokens.shape[1]
    texts = model.generate(context.chosen([0, 1]), QUESTIONS[:2], GREEDY)
    texts += model.generate(context.chosen([2, 3]), QUESTIONS[2:], GREEDY)
    model.score(context, QUESTIONS, ["red"] * 4)
    assert reads[0] == whole
    assert max(reads[1:]) < whole
    each = [model.generate(context_of(model, [q]), [q], GREEDY)[0] for q in QUESTIONS]
    assert texts == each


def test_another_video_has_its_own_prefix(model, one_thread):
    one, other = context_of(model), context_of(model, seed=5)
    asked = QUESTIONS[:1]
    scores = [float(model.score(c.chosen([0]), asked, ["red"])) for c in (one, other, one)]
    assert scores[0] == scores[2] != scores[1]


def test_questions_leave_the_cache_as_it_was(model, one_thread):
    context = context_of(model)
    before = model.score(context, QUESTIONS, ["red circle"] * 4)
    model.generate(context, QUESTIONS, replace(GREEDY, beams=3))
    assert torch.equal(model.score(context, QUESTIONS, ["red circle"] * 4), before)


def test_the_prefix_may_be_read_in_pieces(model, monkeypatch, one_thread):
    context = context_of(model)
    whole = model.score(context, QUESTIONS, ["red circle"] * 4)
    monkeypatch.setattr(prefix, "CHUNK", 37)
    pieces = model.score(context_of(model), QUESTIONS, ["red circle"] * 4)
    assert torch.allclose(whole, pieces, atol=1e-4)


def test_beams_find_what_they_find_one_by_one(model, one_thread):
    how = replace(GREEDY, beams=3)
    together = model.generate(context_of(model), QUESTIONS, how)
    each = [model.generate(context_of(model, [q]), [q], how)[0] for q in QUESTIONS]
    assert together == each
    scores = [
        float(model.score(context_of(model, [q]), [q], [texts[0]]))
        for q, texts in zip(QUESTIONS, together, strict=True)
    ]
    assert all(score < 0 for score in scores)


def test_only_new_text_is_under_the_repetition_penalty(models, one_thread):
    """The first new token is the same under any penalty: nothing was said before it."""
    model = models("smolvlm")
    first = replace(GREEDY, max_new_tokens=1)
    plain = model.generate(context_of(model), QUESTIONS, first)
    assert (
        model.generate(context_of(model), QUESTIONS, replace(first, repetition_penalty=9.0))
        == plain
    )
    longer = model.generate(context_of(model), QUESTIONS, replace(GREEDY, repetition_penalty=9.0))
    assert longer != model.generate(context_of(model), QUESTIONS, GREEDY)


def test_words_are_told_as_they_come(model, one_thread):
    told = []
    context = context_of(model, QUESTIONS[:1])
    ((text,),) = model.generate(context, QUESTIONS[:1], GREEDY, told.append)
    assert "".join(told) == text
    assert len(told) >= 1


def test_sampling_with_a_seed_is_repeatable(model, one_thread):
    how = replace(GREEDY, sample=True, seed=3)
    one, two = (model.generate(context_of(model), QUESTIONS[:1] * 4, how) for _ in range(2))
    assert one == two
    assert model.generate(context_of(model), QUESTIONS[:1] * 4, replace(how, seed=4)) != one


def test_many_prompts_take_no_room_of_their_own(model):
    context = context_of(model, QUESTIONS * 50)
    assert context.tokens.stride(0) == 0
    assert context.chosen(range(100, 140)).tokens.stride(0) == 0
    assert context.is_finite()
