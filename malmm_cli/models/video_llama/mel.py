"""The log-mel spectrogram that ImageBind hears, as Kaldi does it, and the authors' resampler."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["FRAME", "RATE", "log_mel", "resample"]

RATE, FRAME, SHIFT, PADDED = 16_000, 400, 160, 512  # samples
BANDS, FRAMES = 128, 204
LOWEST, HIGHEST = 20.0, 8000.0  # Hz
PREEMPHASIS = 0.97
FLOOR = torch.finfo(torch.float32).eps
MEAN, SCALE = -4.268, 9.138
WIDTH, ROLLOFF = 6, 0.99  # of the resampler


def log_mel(clip: Tensor) -> Tensor:
    """Return (1, 128, 204) float32 for a clip (C, n) of 16 kHz, of which channel 0 is heard.

    Frames of 25 ms every 10 ms, none beyond the end; the rest is filled with zeros before the
    values are normalised. A clip of less than a frame has only those.
    """
    wave = clip[0].float()
    spectrum = torch.zeros(FRAMES, BANDS)
    if len(wave) >= FRAME:
        frames = wave.unfold(0, FRAME, SHIFT)  # (T, 400)
        frames = frames - frames.mean(1, keepdim=True)
        before = torch.cat([frames[:, :1], frames[:, :-1]], 1)
        frames = (frames - PREEMPHASIS * before) * torch.hann_window(FRAME, periodic=False)
        # in float64: the rounding of float32 differs between processors, and the logarithm of
        # nearly nothing magnifies it
        padded = functional.pad(frames.double(), (0, PADDED - FRAME))
        power = torch.fft.rfft(padded).abs() ** 2
        found = (power @ _bands().T.double()).float().clamp_min(FLOOR).log()[:FRAMES]
        spectrum[: len(found)] = found
    return ((spectrum.T - MEAN) / SCALE)[None]


@cache
def _bands() -> Tensor:
    """Triangles (128, 257), equally wide in mel; the last frequency counts for nothing."""
    low, high = (1127.0 * math.log(1.0 + hertz / 700.0) for hertz in (LOWEST, HIGHEST))
    step = (high - low) / (BANDS + 1)
    band = torch.arange(BANDS)[:, None]
    left, centre, right = (low + (band + k) * step for k in range(3))
    hertz = RATE / PADDED * torch.arange(PADDED // 2)
    mel = (1127.0 * (1.0 + hertz / 700.0).log())[None]
    rising, falling = (mel - left) / (centre - left), (right - mel) / (right - centre)
    return functional.pad(torch.minimum(rising, falling).clamp_min(0), (0, 1))


def resample(wave: Tensor, source: int, target: int = RATE) -> Tensor:
    """Return (C, ceil(n · target / source)) for a sound (C, n) of another rate.

    A sinc of 6 zeros in a Hann window, rolled off at 0.99 of the lower rate's band: the authors'
    resampler. FFmpeg's has a steeper filter, so its samples differ; parity needs this one.
    """
    common = math.gcd(source, target)
    source, target = source // common, target // common
    if source == target:
        return wave
    base = min(source, target) * ROLLOFF
    width = math.ceil(WIDTH * source / base)
    # all in float32, as in the reference
    places = torch.arange(-width, width + source)[None] / source
    phases = torch.arange(0, -target, -1)[:, None] / target
    times = ((phases + places) * base).clamp(-WIDTH, WIDTH)
    window = torch.cos(times * math.pi / WIDTH / 2) ** 2
    kernel = (torch.sinc(times) * window * (base / source))[:, None]
    padded = functional.pad(wave, (width, width + source))
    found = functional.conv1d(padded[:, None], kernel, stride=source)  # (C, target, blocks)
    length = math.ceil(target * wave.shape[1] / source)
    return found.transpose(1, 2).reshape(len(wave), -1)[:, :length]
