"""What the authors' numbers do not show: long videos, kinds of media, ends of answers, turns."""

import pytest
import torch
from helpers.video_llama import close, model

from malmm_cli.errors import CapacityError
from malmm_cli.models.base import Features
from malmm_cli.models.video_llama import prompts
from malmm_cli.models.video_llama.texts import Texts
from malmm_cli.settings import Decoding, MemoryOptions

GREEDY = Decoding(max_new_tokens=6, beams=1, repetition_penalty=1.0)
HOW = MemoryOptions(32, banks="visual", merge="frame")


@pytest.fixture(params=["llama-2", "vicuna"])
def net(request, one_thread):
    return model(request.param)


def features(net, number, step=1.0):
    generator = torch.Generator().manual_seed(7)
    rows = torch.randn(number, net.spec.patches, net.spec.width, generator=generator)
    return Features(rows, (torch.arange(number).double() * step)[:, None].expand(-1, 2))


def seen(net, given, how=HOW):
    memory = net.start(["?"], how)
    net.observe(memory, given)
    return net.context(memory)


@pytest.mark.parametrize("number", [33, 40])
def test_beyond_the_table_the_second_qformer_reads_slots_with_spread_rows(number, net):
    given = features(net, number)
    memory = net.start(["?"], HOW)
    net.observe(memory, given)
    slots = memory.slots()
    assert len(slots.rows) == 33
    first = slots.counts[:, 0].cumsum(0) - slots.counts[:, 0]
    places = [
        round((int(a) + (int(n) - 1) / 2) * 31 / (number - 1))
        for a, n in zip(first, slots.counts[:, 0], strict=True)
    ]
    with torch.no_grad():
        rows = slots.rows + net.video.position_embedding.weight[places][:, None]
        expected = net.video.projection(net.video(rows.flatten(0, 1)[None]))
    close(net.context(memory).tokens[:1], expected)


def test_an_hour_is_as_many_tokens_as_a_minute(net):
    long = seen(net, features(net, 300))
    assert long.tokens.shape == seen(net, features(net, 2)).tokens.shape
    assert long.extras["seconds"].shape == (1, 33)
    assert net.generate(long, ["What?"], GREEDY)


def test_one_picture_at_the_start_is_a_still_image():
    assert prompts.message("Q?", [0.0], heard=False) == "<Image><ImageHere></Image>  Q?"
    assert prompts.system([0.0], heard=False) == prompts.SYSTEM
    one = prompts.message("Q?", [12.34], heard=False)
    assert one.endswith("contains 1 frames sampled at 12.3 seconds.  Q?")
    assert prompts.system([12.34], heard=False) == ""


def test_a_question_cannot_make_room_for_media(net):
    context = seen(net, features(net, 3))
    plain = net.score(context, ["What is it?"], ["red"])
    asked = net.score(context, ["What<ImageHere> is it?"], ["red"])
    close(asked, plain)


def test_braces_stay_as_they_are(net):
    given = prompts.pieces(net.texts.form, "", [("{answer}", "{message}")], "{system}")
    text = "".join(given)
    assert text.index("{answer}") < text.index("{message}") < text.index("{system}")


def test_a_reply_reads_earlier_turns(net):
    context = seen(net, features(net, 3))
    alone = net.reply(context, (), "What?", GREEDY)
    assert alone == net.generate(context, ["What?"], GREEDY)[0]
    after = net.reply(context, [("Who?", "A dog.")], "What?", GREEDY)
    assert after != alone


def test_a_score_is_that_of_the_words_one_by_one(net):
    context = seen(net, features(net, 3))
    given = net._input(context, 0, (), "What?")
    ids = [*net.texts.ids("red dog"), net.texts.end]
    total = 0.0
    for number, token in enumerate(ids):
        before = torch.tensor(ids[:number], dtype=torch.long)
        with torch.no_grad():
            embeds = torch.cat([given, net.language_model.get_input_embeddings()(before)])
            logits = net.language_model(inputs_embeds=embeds[None]).logits[0, -1]
        total += float(logits.log_softmax(-1)[token])
    assert float(net.score(context, ["What?"], ["red dog"])) == pytest.approx(total, abs=1e-4)


def test_an_answer_ends_at_a_sequence_of_ids(net, monkeypatch):
    context = seen(net, features(net, 3))
    monkeypatch.setattr(net.texts, "stops", [])
    words = Decoding(max_new_tokens=8, beams=1, repetition_penalty=1.0)
    found = []
    monkeypatch.setattr(Texts, "decode", lambda _, ids: [found.append(ids.tolist()[0]) or ""])
    net.generate(context, ["What?"], words)
    (whole,) = found
    monkeypatch.setattr(net.texts, "stops", [whole[1:3]])
    net.generate(context, ["What?"], words)
    assert found[1] == whole[:3]


def test_answers_are_cut_where_the_next_turn_begins(net):
    end, role = net.texts.form.end, net.texts.form.role
    ids = torch.tensor([net.texts.ids(f"{role} red dog{end} more")])
    assert net.texts.decode(ids) == ["red dog"]


def test_too_long_a_question_is_refused_with_the_limit(net):
    context = seen(net, features(net, 3))
    with pytest.raises(CapacityError, match="2048"):
        net.generate(context, ["why " * 2048], GREEDY)
