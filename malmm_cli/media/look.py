"""A picture as PyAV decodes it: its colours and its orientation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
from av.video.frame import VideoFrame
from PIL import Image

from malmm_cli.media.geometry import UPRIGHT, Pixels, Turn, on_white, turn_of, turned_by

__all__ = ["has_alpha", "how_to_turn", "pixels_of"]


def has_alpha(frame: VideoFrame) -> bool:
    """Say whether this picture may be transparent in places."""
    form = frame.format
    return form.has_palette or any(component.is_alpha for component in form.components)


def pixels_of(frame: VideoFrame) -> Pixels:
    """Return the picture in RGB, white where it is transparent."""
    if has_alpha(frame):
        return on_white(Image.fromarray(frame.to_ndarray(format="rgba")))
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def how_to_turn(frame: VideoFrame, codec: str) -> Turn:
    """Return how to turn this picture. To be asked once: side data makes reference cycles."""
    if codec in {"png", "apng"}:  # PyAV crashes on side data with a name, as their profiles have
        return turned_by(frame.rotation)
    try:
        matrix = cast("Mapping[str, bytes]", frame.side_data)["DISPLAYMATRIX"]
    except KeyError:
        return UPRIGHT
    except ValueError:  # PyAV stumbles over kinds of side data newer than itself
        return turned_by(frame.rotation)
    return turn_of(np.frombuffer(matrix, np.int32))
