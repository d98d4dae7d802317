"""Vision-language models in training: the same numbers, and gradient through every slot."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from malmm_cli.models import registry
from malmm_cli.models.base import Features
from malmm_cli.models.vlm import lora, projector
from malmm_cli.models.vlm.mixture import remembered
from malmm_cli.models.vlm.random_init import tiny_config, write
from malmm_cli.settings import MemoryOptions

QUESTIONS = ["how many?", "what does the video describe?"]
ANSWERS = ["red", "the short circle"]
HOW = MemoryOptions(3, banks="visual", merge="frame")
WAYS = {
    "mean": HOW,
    "token": replace(HOW, merge="token"),
    "plain": replace(HOW, mean="plain"),
    "keep": replace(HOW, fill="keep"),
    "fifo": replace(HOW, policy="fifo"),
    "average": replace(HOW, policy="average"),
    "all": replace(HOW, length=0),
}


def clip(model, frames: int = 12, seed: int = 0):
    width, height = model.frame_size(96, 96)
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (frames, height, width, 3), generator=generator).byte()
    return pixels, torch.arange(float(frames)).double()


def trained(model, video, how=HOW, questions=QUESTIONS):
    return model.training_context([video], questions, how, position_gradient="all")


@pytest.fixture
def learning(model, folders):
    """One of each architecture for this test alone, whose projector has gradient."""
    net = registry.load(folders(model.adapter.config.model_type))
    net.prepare()
    for parameter in net.trainable().values():
        parameter.requires_grad_(True)
    return net


def test_the_encoder_ends_where_the_projector_begins(model, one_thread):
    encoder, (pixels, seconds) = model.encoder(), clip(model)
    given, made = encoder.encode(pixels, seconds), model.encode(pixels, seconds)
    assert given.rows.shape[-1] == encoder.spec.width == projector.columns(model.adapter)
    again = model.apart(
        given._replace(rows=projector.project(model.adapter, model.net, given.rows))
    )
    for name, tensor in made.as_dict().items():
        assert torch.equal(again.as_dict()[name], tensor), name
    assert not any(part._forward_pre_hooks for part in model.adapter.projectors(model.net))


def test_every_tensor_before_the_language_model_is_encoder_or_projector(model):
    adapter = model.adapter
    sees = (*adapter.encoder, *adapter.projector)
    names = [name for name, _ in model.net.named_parameters()]
    left = [name for name in names if not name.startswith(sees)]
    assert all(name.startswith((adapter.parts["text_config"], "lm_head.")) for name in left)
    for begin in sees:
        absent = begin.endswith("deepstack_merger_list.") and not adapter.levels
        assert absent or any(name.startswith(begin) for name in names), begin


def test_features_before_the_projector_are_others_in_a_cache(model):
    before, after = model.encoder().spec, model.spec
    assert before.parts["encoder"] != after.parts["encoder"]
    assert before.riders.keys() == after.riders.keys() - {"levels"}


def test_the_loss_is_the_likelihood_of_the_answers(model, one_thread):
    pixels, seconds = clip(model)
    memory = model.start(QUESTIONS, HOW)
    model.observe(memory, model.encode(pixels, seconds))
    scores = model.score(model.context(memory), QUESTIONS, ANSWERS)
    with torch.no_grad():
        context = trained(model, model.encoder().encode(pixels, seconds))
        loss = model.loss(context, QUESTIONS, ANSWERS)
    tokens = sum(map(model.answer_tokens, ANSWERS))
    torch.testing.assert_close(loss * tokens, -scores.sum(), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_gradient_is_that_of_the_mixture(way):
    """As if every slot were written down as a function of the features that it is made of."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(20, 3, 5, generator=generator)
    rider = torch.randn(20, 3, 2, generator=generator)
    weights = torch.randn(21, 3, 7, generator=generator)
    seconds = torch.arange(20.0).double()[:, None].expand(-1, 2)

    def total(rows, rider):
        features = Features(rows, seconds, {"deep": rider})
        slots = remembered(features, {"rows": 5, "deep": 2}, WAYS[way])
        return (
            torch.cat([slots.rows, slots.riders["deep"]], -1) * weights[: len(slots.rows)]
        ).sum()

    leaves = rows.clone().requires_grad_(True), rider.clone().requires_grad_(True)
    total(*leaves).backward()
    assert torch.equal(total(rows, rider), total(*leaves).detach())
    step = 1e-3
    changed = torch.randn(rows.shape, generator=generator) * step
    ridden = torch.randn(rider.shape, generator=generator) * step
    difference = total(rows + changed, rider + ridden) - total(rows - changed, rider - ridden)
    due = 2 * ((leaves[0].grad * changed).sum() + (leaves[1].grad * ridden).sum())
    torch.testing.assert_close(difference, due, atol=1e-5, rtol=1e-2)
    seen = (leaves[0].grad.abs().amax((1, 2)) > 0).sum()
    assert seen == {"keep": 4, "fifo": 4}.get(way, 20)


def test_gradient_reaches_every_part_of_the_projector_and_nothing_else(learning, one_thread):
    context = trained(learning, learning.encoder().encode(*clip(learning)))
    learning.loss(context, QUESTIONS, ANSWERS).backward()
    names = {name for name, value in learning.net.named_parameters() if value.grad is not None}
    assert names == learning.trainable().keys()
    assert all(value.grad.abs().sum() > 0 for value in learning.trainable().values())


def test_gradient_is_the_slope_of_the_loss(learning, one_thread):
    learning.net.double()
    given = learning.encoder().encode(*clip(learning))

    def loss():
        return learning.loss(trained(learning, given), QUESTIONS, ANSWERS)

    loss().backward()
    parameters = list(learning.trainable().values())
    due = sum(float((p.grad**2).sum()) for p in parameters)
    step = 1e-3 / due**0.5  # the loss is float32, and some layers are
    found = []
    for sign in (1, -1):
        with torch.no_grad():
            for p in parameters:
                p += sign * step * p.grad
            found.append(float(loss()))
            for p in parameters:
                p -= sign * step * p.grad
    assert (found[0] - found[1]) / (2 * step) == pytest.approx(due, rel=1e-2)


def test_adapters_change_nothing_before_they_learn(learning, one_thread):
    given = learning.encoder().encode(*clip(learning))
    before = learning.loss(trained(learning, given), QUESTIONS, ANSWERS).item()
    learning.prepare(lora=2, seed=3)
    assert learning.loss(trained(learning, given), QUESTIONS, ANSWERS).item() == before
    names = [name for name in learning.trainable() if ".lora_" in name]
    assert names
    text = learning.adapter.parts["text_config"]
    assert all(name.startswith(text) and name.endswith(".weight") for name in names)
    assert all("default" not in name for name in names)


def test_adapters_begin_as_their_seed_says(folders):
    found = []
    for noise, seed in ((1, 5), (2, 5), (2, 6)):
        torch.manual_seed(noise)
        net = registry.load(folders("smolvlm"))
        net.prepare(lora=2, seed=seed)
        found.append(torch.cat([value.flatten() for value in net.trainable().values()]))
        assert torch.initial_seed() == noise
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


def test_merged_adapters_compute_the_same(learning, folders, tmp_path, one_thread):
    learning.prepare(lora=2, seed=3)
    generator = torch.Generator().manual_seed(1)
    trained_now = {}
    for name, value in learning.trainable().items():
        if "lora_B" in name:
            value.data = torch.randn(value.shape, generator=generator) * 0.1
        trained_now[name] = value.detach()
    plain = registry.load(folders(learning.adapter.config.model_type))
    base = {name: value.detach().clone() for name, value in plain.net.named_parameters()}
    merged = lora.merged(base, trained_now)
    assert merged.keys() <= base.keys()
    given = plain.encoder().encode(*clip(plain))
    with torch.no_grad():
        before = plain.loss(trained(plain, given), QUESTIONS, ANSWERS)
        for name, value in plain.net.named_parameters():
            value.copy_(merged.get(name, value))
        after = plain.loss(trained(plain, given), QUESTIONS, ANSWERS)
        due = learning.loss(trained(learning, given), QUESTIONS, ANSWERS)
    torch.testing.assert_close(after, due, atol=1e-4, rtol=1e-4)
    assert abs(after - before) > 1e-3


def test_a_projector_in_single_precision_goes_with_the_rest_in_half(folders, one_thread):
    for name in ("qwen3_vl", "smolvlm", "internvl"):
        net = registry.load(folders(name), dtype=torch.bfloat16)
        net.prepare(lora=2)
        for value in net.trainable().values():
            value.data = value.data.float()
            value.requires_grad_(True)
        pixels, seconds = clip(net, 4)
        given = net.encoder().encode(pixels, seconds)
        assert given.rows.dtype == torch.bfloat16
        assert net.encode(pixels, seconds).rows.dtype == torch.float32
        for mixed in (True, False):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
                loss = net.loss(trained(net, given), QUESTIONS, ANSWERS)
            loss.backward()
            assert loss.isfinite()
        assert all(value.grad.dtype == torch.float32 for value in net.trainable().values())


def test_what_was_said_to_be_read_is_enough(model):
    for slots in (1, 3, 5):
        how = replace(HOW, length=slots)
        context = trained(model, model.encoder().encode(*clip(model)), how)
        features = model.spec.features(12)
        assert context.tokens.shape[1] <= model.visual_tokens(how, features)


def test_a_wide_model_can_be_written_too(tmp_path):
    """Names of many layers are as exact as those of a few."""
    config = tiny_config("smolvlm")
    config.text_config.num_hidden_layers = 12
    write(tmp_path / "deep", config, ["red"])
    net = registry.load(tmp_path / "deep")
    net.prepare(lora=1)
    assert sum(".lora_A" in name for name in net.trainable()) == 12 * 7
