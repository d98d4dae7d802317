"""Whole conversations against the authors' code: prompts, input, logits, greedy ids."""

import pytest
import torch
from helpers.video_llama import close, conversations, index, model, only, tensors

from malmm_cli.models.base import Features
from malmm_cli.models.config import quiet
from malmm_cli.models.video_llama import prompts
from malmm_cli.settings import MemoryOptions


def form_of(case):
    return "vicuna" if case["messages"][0][0] == "Human" else "llama-2"


def remembered(case, net):
    """The memory of the case's media, from pictures as they are stored and vectors of clips."""
    media, kind = only("media"), case["kind"]
    memory = net.start(["?"], MemoryOptions(32, banks="visual"))
    if kind == "image":
        frames, seconds = media["image_uint8_hwc"][None], [0.0]
    else:
        frames = media["frames_uint8_cthw"].permute(1, 2, 3, 0)
        said = index()["e2e_video"]
        seconds = [place / said["fps"] for place in said["indices"]]
    if kind == "av":
        clips = only("clips")["embedding_normalised_x20"][0][:, None]
        times = torch.arange(len(clips), dtype=torch.float64)[:, None].expand(-1, 2)
        net.hear(memory, Features(clips, times))
    net.observe(memory, net.encode(frames, torch.tensor(seconds, dtype=torch.float64)))
    return memory


@pytest.fixture(params=conversations(), ids=lambda pair: pair[0])
def given(request, monkeypatch, one_thread):
    name, file = request.param
    case = index()["e2e"][name]
    # what the media are decides the system text; the authors' demos differ in it
    monkeypatch.setattr(prompts, "system", lambda seconds, heard: case["system"])
    net = model(form_of(case))
    return case, net, net.context(remembered(case, net)), tensors(file)


def turns(case):
    """Each turn: earlier questions with their answers, and its own."""
    before = []
    for turn in case["turns"]:
        yield [*before], turn
        before.append((turn["question"], turn["history_answer_used_for_next_turn"]))


def test_media(given):
    _, _, context, tensors = given
    stored = [tensors[name] for name in sorted(tensors) if name.startswith("media_")]
    close(context.tokens[0], torch.cat(stored, dim=1)[0])


def test_prompts(given, monkeypatch):
    """Every piece has the authors' ids."""
    case, net, context, _ = given
    found = []
    read = type(net.texts).pieces

    def pieces(texts, parts):
        found.append(("<ImageHere>".join(parts), read(texts, parts)))
        return found[-1][1]

    monkeypatch.setattr(type(net.texts), "pieces", pieces)
    for before, turn in turns(case):
        net._input(context, 0, before, turn["question"])
        assert found.pop() == (turn["prompt"], turn["segment_ids"])


def test_input_logits_and_greedy_ids(given):
    case, net, context, tensors = given
    for number, (before, turn) in enumerate(turns(case)):
        embeds = net._input(context, 0, before, turn["question"])[None]
        close(embeds, tensors[f"turn{number}_inputs_embeds"])
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        with torch.no_grad(), quiet():
            logits = net.language_model(inputs_embeds=embeds).logits[0, -1]
            ids = net.language_model.generate(
                inputs_embeds=embeds,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=len(turn["greedy_ids"]),
                eos_token_id=net.texts.ends,
                pad_token_id=net.texts.padding,
            )
        close(logits, tensors[f"turn{number}_last_logits"])
        assert ids[0].tolist() == turn["greedy_ids"]
