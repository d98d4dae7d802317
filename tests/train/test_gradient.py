"""The training form of the memory: what learns, and through which frames."""

import pytest
import torch
from helpers.memories import remember, start

from malmm_cli.memory.rule import Rule
from malmm_cli.models import registry
from malmm_cli.models.instructblip import random_init
from malmm_cli.models.instructblip.defaults import ASK
from malmm_cli.models.instructblip.load import load
from malmm_cli.models.instructblip.positions import position
from malmm_cli.train import Recipe
from malmm_cli.train.learner import Learner

PROMPTS = ["what moves", "which colour left"]
FRAMES = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small model that drops nothing out, with a position table."""
    place = tmp_path_factory.mktemp("models") / "still"
    config = random_init.tiny_config("vicuna")
    config.qformer_config.hidden_dropout_prob = 0.0
    config.qformer_config.attention_probs_dropout_prob = 0.0
    random_init.write(place, config, " ".join(PROMPTS).split(), positions=6)
    return place


@pytest.fixture
def net(folder):
    net = registry.load(folder)
    net.qformer.requires_grad_(True).train()
    net.position_embedding.requires_grad_(True)
    return net


def features(net, frames=FRAMES):
    torch.manual_seed(5)
    return torch.randn(2, frames, 65, net.config.vision_config.hidden_size)


def learn(net, seen, prompts=PROMPTS, **options):
    """Gradient of the position table and tokens (B, n, D)."""
    ids, mask = net.texts.instructions(prompts)
    tokens = net.remember_for_training(seen, ids, mask, total=seen.shape[1], **options)
    weight = torch.linspace(-1, 1, tokens.numel()).view_as(tokens)
    (tokens * weight).sum().backward()
    gradient = net.position_embedding.weight.grad.clone()
    net.zero_grad()
    return gradient, tokens.detach()


def naive(net, seen, length, policy):
    """The same with a visual bank that never forgets how its entries came about."""
    ids, mask = net.texts.instructions(PROMPTS)
    options = {"length": length, "policy": policy, "total": seen.shape[1]}
    memory = net.start_from_ids(ids, mask, **options)
    bank = counts = None
    for index in range(seen.shape[1] - 1):
        row = (seen[:, index] + position(net.position_embedding.weight, index, seen.shape[1]))[
            :, None
        ]
        one = torch.ones(row.shape[:3])
        bank = row if bank is None else torch.cat([bank, row], 1)
        counts = one if counts is None else torch.cat([counts, one], 1)
        if bank.shape[1] > length:
            bank, counts = Rule(policy, total=seen.shape[1]).compress(bank, counts)
        with torch.no_grad():
            remember(net, seen[:, index : index + 1], memory)
    with torch.no_grad():
        net._store(memory.newest, memory)
    memory = memory.plain()
    memory.visual.entries, memory.visual.counts = bank, counts
    memory.hidden = net.qformer.embeddings(net.query_tokens, ids)
    newest = net.placed(seen[:, -1], memory)
    tokens = net.qformer.step(newest, memory, net.num_queries)
    weight = torch.linspace(-1, 1, tokens.numel()).view_as(tokens)
    (tokens * weight).sum().backward()
    gradient = net.position_embedding.weight.grad.clone()
    net.zero_grad()
    return gradient, tokens.detach()


@pytest.mark.parametrize("policy", ["mbc", "fifo", "random", "uniform"])
@pytest.mark.parametrize("frames", [5, 9])  # the table has 6 rows
def test_positions_learn_through_every_frame_in_the_bank(net, policy, frames):
    seen = features(net, frames)
    ours, tokens = learn(net, seen, length=3, policy=policy, position_gradient="all")
    due, same = naive(net, seen, 3, policy)
    torch.testing.assert_close(tokens, same, atol=2e-5, rtol=0)
    torch.testing.assert_close(ours, due, atol=1e-5 * due.abs().max().item(), rtol=1e-4)
    rows = ours.abs().sum(1) > 0
    assert rows.sum() > (frames == 5) + 1
    if policy == "mbc" and frames == 5:
        assert rows.tolist() == [True] * 5 + [False]


def test_positions_learn_at_the_last_frame_alone_as_in_the_reference(net):
    last, tokens = learn(net, features(net, 5), length=3)
    assert (last.abs().sum(1) > 0).tolist() == [False] * 4 + [True, False]
    every, same = learn(net, features(net, 5), length=3, position_gradient="all")
    assert torch.equal(tokens, same), "the gradient must not change the numbers"
    assert not torch.allclose(last, every)


@pytest.mark.parametrize("policy", ["mbc", "fifo", "random", "uniform"])
def test_a_visual_bank_alone_is_filled_without_the_layers(net, policy):
    seen = features(net)
    calls = []
    net.qformer.encoder.layer[0].attention.register_forward_hook(lambda *_: calls.append(1))
    options = {"length": 3, "policy": policy, "banks": "visual"}
    _, tokens = learn(net, seen, **options)
    assert len(calls) == 1
    memory = start(net, PROMPTS, total=FRAMES, **options)
    torch.testing.assert_close(tokens, remember(net, seen, memory)[0], atol=2e-5, rtol=0)


def test_without_dropout_layer_0_has_no_bank_and_nothing_changes(net):
    seen = features(net)
    _, tokens = learn(net, seen, length=3)
    memory = start(net, PROMPTS, length=3, total=FRAMES)
    torch.testing.assert_close(tokens, remember(net, seen, memory)[0], atol=2e-5, rtol=0)


def test_a_learner_freezes_all_that_does_not_learn(vicuna_folder):
    net = load(vicuna_folder)
    net.train().requires_grad_(True)
    learner = Learner(net, Recipe(), ASK, steps=1)
    learning = {name for name, value in net.named_parameters() if value.requires_grad}
    assert learning == learner.parameters.keys() == net.trainable().keys()
    assert not any(module.training for module in net.modules())
