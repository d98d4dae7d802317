"""Which 2 s of a sound the authors listen to, and clips of a sound of any length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

import torch
from torch import Tensor

from malmm_cli.models.video_llama.mel import FRAME, RATE

__all__ = ["CLIP_SECONDS", "authors_bounds", "authors_clips", "stream_clips"]

CLIP_SECONDS = 2


def authors_bounds(samples: int, clips: int = 8) -> list[tuple[int, int]]:
    """Return (first, stop) of each clip, in samples at 16 kHz of a sound of so many.

    Clip i starts at i (D - 2) / clips for D seconds, computed exactly from the float D and cut off
    to whole samples; the last clip ends before a long sound does, and all are the beginning of one
    of 2 s or less. `stop` may lie past the end.
    """
    step = Fraction(max(samples / RATE - CLIP_SECONDS, 0)) / clips
    starts = [i * step for i in range(clips)]
    return [(int(start * RATE), int((start + CLIP_SECONDS) * RATE)) for start in starts]


def authors_clips(waveform: Tensor, clips: int = 8) -> list[Tensor]:
    """Return the authors' clips (C, n) of a sound (C, samples) float32 at 16 kHz.

    The mean over a clip and its channels is subtracted in turn, so that a clip that overlaps
    earlier ones has samples that were shifted before, as in the reference.
    """
    shifted = waveform.clone()
    found = []
    for first, stop in authors_bounds(waveform.shape[1], clips):
        clip = shifted[:, first:stop]
        clip -= clip.mean()
        found.append(clip.clone())
    return found


def stream_clips(chunks: Iterable[Tensor]) -> Iterator[tuple[float, float, Tensor]]:
    """Yield (start, end, clip) in seconds and (C, n ≤ 32000) for chunks (C, ·) at 16 kHz.

    Clips of 2 s follow each other without gap or overlap; the mean of each is 0. The last may be
    shorter, and is left out below 25 ms.
    """
    length, first = CLIP_SECONDS * RATE, 0
    kept: list[Tensor] = []
    for chunk in chunks:
        kept.append(chunk)
        if sum(part.shape[1] for part in kept) < length:
            continue
        whole = torch.cat(kept, 1)
        while whole.shape[1] >= length:
            yield _clip(first, whole[:, :length])
            first, whole = first + length, whole[:, length:]
        kept = [whole]
    rest = torch.cat(kept, 1) if kept else torch.zeros(1, 0)
    if rest.shape[1] >= FRAME:  # else there is no frame of a spectrogram
        yield _clip(first, rest)


def _clip(first: int, samples: Tensor) -> tuple[float, float, Tensor]:
    return first / RATE, (first + samples.shape[1]) / RATE, samples - samples.mean()
