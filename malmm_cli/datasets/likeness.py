"""Whether frames look like those of the drawn world: one plain background behind a few shapes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["background_share", "looks_drawn"]

# Distance of a channel's value (0 … 255) up to which a pixel belongs to the background, and the
# share of background that drawings have: 0.67 and more, with black bars 0.53; of films below 0.3.
NEAR, LEAST = 16, 0.45


def background_share(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The share of pixels near the median colour, (T,), of frames (T, H, W, 3) uint8."""
    pixels = frames.reshape(len(frames), -1, 3).astype(np.int16)
    median = np.median(pixels, axis=1, keepdims=True)
    share: NDArray[np.float64] = (abs(pixels - median) <= NEAR).all(-1).mean(1)
    return share


def looks_drawn(shares: NDArray[np.float64]) -> bool:
    """Whether most frames, by their `background_share`, look drawn."""
    return bool(np.median(shares) >= LEAST)
