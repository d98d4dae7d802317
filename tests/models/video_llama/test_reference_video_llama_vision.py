"""Pictures, and vectors of clips of sound, against the authors' code, stage by stage."""

import pytest
import torch
from helpers.video_llama import close, files, model, tensors

from malmm_cli.models.base import Features
from malmm_cli.settings import MemoryOptions


def features(rows):
    seconds = torch.arange(len(rows), dtype=torch.float64)[:, None].expand(-1, 2)
    return Features(rows, seconds)


def tokens(net, rows):
    """The context (n, E) of a video with these rows (T, P, C)."""
    memory = net.start(["?"], MemoryOptions(32, banks="visual"))
    net.observe(memory, features(rows))
    return net.context(memory).tokens[0]


@pytest.mark.parametrize("file", files("vision"))
def test_pictures(file, one_thread):
    given, net = tensors(file), model()
    pixels = given["pixels_bcthw"]
    batch, time = pixels.shape[0], pixels.shape[2]
    with torch.no_grad():
        found = net.vision_model(pixel_values=pixels.transpose(1, 2).flatten(0, 1))
        close(found.last_hidden_state, given["image_embeds_after_ln_vision"])
        rows = net.asked(found.last_hidden_state)
    close(rows, given["blip2_qformer_out"])
    for video, expected in zip(
        rows.view(batch, time, *rows.shape[1:]), given["inputs_llama"], strict=True
    ):
        close(tokens(net, video), expected)


@pytest.mark.parametrize("file", files("features"))
def test_patches_instead_of_pictures(file, one_thread):
    given, net = tensors(file), model()
    with torch.no_grad():
        rows = net.asked(given["image_embeds"])
    close(rows, given["blip2_qformer_out"])
    batch = len(given["inputs_llama"])
    for video, expected in zip(
        rows.view(batch, -1, *rows.shape[1:]), given["inputs_llama"], strict=True
    ):
        close(tokens(net, video), expected)


@pytest.mark.parametrize("file", files("audio"))
def test_clips_of_sound(file, one_thread):
    given, net = tensors(file), model()
    table = net.audio.position_embedding.weight
    for added, out, expected in zip(
        given["audio_position_added"],
        given["audio_qformer_out"],
        given["inputs_llama"],
        strict=True,
    ):
        memory = net.start(["?"], MemoryOptions(32, banks="visual"))
        net.hear(memory, features((added - table[: len(added)])[:, None]))
        with torch.no_grad():
            close(net.audio.whole(memory.sound), out)
        close(net.context(memory).tokens[0], expected)
