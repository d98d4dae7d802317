"""Spectrograms, clips, resampler and ImageBind's trunks against the authors' code."""

import pytest
import torch
from helpers.video_llama import close, files, index, only, tensors

from malmm_cli.models.video_llama.clips import authors_bounds, authors_clips, stream_clips
from malmm_cli.models.video_llama.mel import log_mel, resample
from malmm_cli.models.video_llama.trunk import Trunk, trunk_keys

# The reference computes in float32 on another processor, and the logarithm of nearly nothing
# magnifies its rounding: one value in 3,000 differs by more than 2e-5, one of all by 1.1e-4.
MEL_TOLERANCE = 2e-4
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
DEVIATION = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


def ours(name):
    """(waveform at 16 kHz, number of clips, the tensors) of a file."""
    stored = tensors(name)
    wave = stored["waveform_int16"].float() / 32768
    clips = stored["mel"].shape[1]
    for entry in index()["audio_clips"].values():
        length = round(wave.shape[1] * 16000 / entry["sample_rate"])
        if (entry["channels"], entry["n_samples_16k"]) == (len(wave), length):
            return resample(wave, entry["sample_rate"]), entry["clip_sample_ranges"], stored
    return wave, [list(b) for b in authors_bounds(wave.shape[1], clips)], stored


@pytest.mark.parametrize("name", files("sound"))
def test_clips_and_spectrograms(name):
    wave, ranges, stored = ours(name)
    assert [list(bounds) for bounds in authors_bounds(wave.shape[1], len(ranges))] == ranges
    if "resampled_16k" in stored:
        theirs = stored["resampled_16k"]
        torch.testing.assert_close(wave[:, : theirs.shape[1]], theirs, atol=1e-6, rtol=0)
    mel = torch.stack([log_mel(clip) for clip in authors_clips(wave, len(ranges))])[None]
    torch.testing.assert_close(mel, stored["mel"], atol=MEL_TOLERANCE, rtol=0)


def trunk(modality):
    state = trunk_keys(only("imagebind"), modality)
    config, audio = index()["config"], modality == "audio"
    made = Trunk(
        audio=audio,
        width=state["cls_token"].shape[-1],
        heads=config["a_heads"] if audio else config["ib_v_heads"],
        blocks=config["a_blocks"] if audio else config["ib_v_blocks"],
        out=len(state["head.weight"]),
        tokens=state["positions"].shape[1],
        patch=state["stem.weight"].shape[-1],
    )
    made.load_state_dict(state)
    return made.eval()


@pytest.mark.parametrize("name", files("clips"))
def test_audio_trunk(name):
    theirs = tensors(name)["embedding_normalised_x20"][0]
    count = len(theirs)
    mels = [tensors(wave)["mel"][0] for wave in files("sound")]
    (mel,) = [mel for mel in mels if len(mel) == count]
    with torch.no_grad():
        close(trunk("audio")(mel), theirs)


@pytest.mark.parametrize("name", files("frames"))
def test_vision_trunk(name):
    stored = tensors(name)
    frames = (stored["frames_uint8_btchw"][0].float() / 255 - MEAN) / DEVIATION
    with torch.no_grad():
        found = trunk("vision")(frames[:, :, None].expand(-1, -1, 2, -1, -1))
    close(found, stored["embedding_normalised"][0])


def test_streamed_clips_hear_all_of_a_sound():
    wave = torch.randn(1, 16000 * 5, generator=torch.Generator().manual_seed(0))
    whole = list(stream_clips([wave]))
    assert [(start, end) for start, end, _ in whole] == [(0, 2), (2, 4), (4, 5)]
    pieces = list(stream_clips(wave.split(7001, 1)))
    for (_, _, one), (_, _, other) in zip(whole, pieces, strict=True):
        torch.testing.assert_close(one, other)
        assert abs(one.mean()) < 1e-6
