"""Every step of the memory Q-Former, its banks and its gradients, against the authors' code."""

import pytest
import torch
from helpers.memories import remember
from helpers.reference import close, files, model, tensors, trainable, whole

from malmm_cli.models.instructblip.convert import rename

MEMORY, APART, GRADIENT = files("memory"), files("no memory"), files("gradient")


@pytest.fixture(scope="module")
def qformer_model():
    return model("finetuned")


def begin(net, given, *, first_layer, plain=False):
    memory = net.start_from_ids(
        given.text_ids, given.text_mask, length=given.entry["M"], first_layer=first_layer
    )
    return memory.plain() if plain else memory


def stored(bank):
    return (bank.entries, bank.counts) if hasattr(bank, "entries") else bank.in_time()


@pytest.mark.parametrize("form", ["slots", "slots and layer 0", "plain"])
@pytest.mark.parametrize("file", MEMORY)
def test_every_step(qformer_model, file, form):
    """Outputs and banks after each frame; layer 0's bank, left out, changes nothing."""
    given, net = whole(file), qformer_model
    memory = begin(net, given, first_layer=form != "slots", plain=form == "plain")
    for step in range(given.entry["T"]):
        tokens, memory = remember(net, given.features[:, step : step + 1], memory)
        close(tokens, given.query_output_steps[step])
        if step:  # a frame joins the banks when the next one comes
            check_banks(given, memory, step - 1)
    close(tokens, given.query_output)
    with torch.no_grad():
        projected = net.language_projection(tokens)
    close(projected, given.llm_proj_output)
    close(projected, given.llm_visual_embeds)


def check_banks(given, memory, step):
    held = min(step + 1, given.entry["M"])
    entries, counts = stored(memory.visual)
    assert torch.equal(counts.to(torch.uint8), given.vsize[step][:, :held])
    close(entries.sum(-1), given.vbank_sum[step][:, :held], 2e-4)  # a sum over 40 channels
    close_at(f"vbank_t{step:03}", given, entries)
    for layer, bank in enumerate(memory.queries):
        if bank is None:
            assert layer == 0
            continue
        entries, counts = stored(bank)
        decided = ~given.degenerate[layer]  # elsewhere every frame is the same, sizes are noise
        theirs = given.qsize[step, layer][:, :held]
        assert torch.equal(counts.to(torch.uint8)[..., decided], theirs[..., decided])
        assert torch.equal(counts.sum(1), torch.full_like(counts[:, 0], step + 1))
        close(entries.sum(-1), given.qbank_sum[step, layer][:, :held], 2e-4)
        close_at(f"qbank_t{step:03}", given, entries, layer)


def close_at(name, given, entries, layer=None):
    """Compare whole banks at the steps where the case holds them."""
    stored_bank = getattr(given, name, None)
    if stored_bank is not None:
        close(entries, stored_bank if layer is None else stored_bank[layer])


@pytest.mark.parametrize("file", APART)
def test_without_memory(qformer_model, file):
    """M = 0: frames one by one without position embedding, all tokens in order of time."""
    given, net = whole(file), qformer_model
    memory = begin(net, given, first_layer=False)
    for part in given.features.split([1, given.entry["T"] - 1], dim=1):
        if part.shape[1]:
            tokens, memory = remember(net, part, memory)
    frames = given.entry["T"]
    close(tokens, given.query_output.view(given.entry["B"], -1, tokens.shape[-1]))
    with torch.no_grad():
        close(net.language_projection(tokens), given.llm_visual_embeds)
    assert memory.frames == frames


@pytest.mark.parametrize("file", GRADIENT)
def test_gradients(file):
    """The training form: gradient through bank tokens into the weights, never into the past."""
    given, net = whole(file), model("finetuned")
    parameters = trainable(net)
    features = given.features + 0  # (B, T, P, C)
    tokens = net.remember_for_training(
        features, given.text_ids, given.text_mask, length=given.entry["M"]
    )
    close(tokens.detach(), given.query_output)
    loss = (tokens * given.R).sum()
    loss.backward()
    assert abs(loss.item() - given.entry["loss_fp64"]) < 1e-3
    due = rename(
        {
            name.removeprefix("grad."): value
            for name, value in tensors(file).items()
            if name.startswith("grad.")
        }
    )
    zero = rename(dict.fromkeys(given.entry["mathematically_zero"], torch.zeros(())))
    exactly_zero = rename(dict.fromkeys(given.entry["grad_exactly_zero"], torch.zeros(())))
    for name, gradient in due.items():
        ours = parameters[name].grad
        assert ours is not None, name
        if name in zero:
            assert ours.abs().max() < 1e-5, name
        else:
            assert (ours - gradient).abs().max() < 1e-4 * gradient.abs().max(), name
    for name in exactly_zero:
        ours = parameters[name].grad
        assert ours is None or not ours.any(), name


@pytest.mark.parametrize("file", MEMORY)
def test_encoder_decoders_have_the_same_tokens(file):
    """A Flan-T5 behind the reference's Q-Former changes nothing before it."""
    given, net = whole(file), model("finetuned", language="flan-t5")
    assert net.language_model.config.is_encoder_decoder
    memory = begin(net, given, first_layer=False)
    tokens, _ = remember(net, given.features, memory)
    close(tokens, given.query_output)
