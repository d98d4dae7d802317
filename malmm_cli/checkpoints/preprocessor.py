"""Image preprocessing settings of a model folder.

transformers knows four places. A folder's processor is for videos or for pictures, and looks at
its own places in turn; the first that is there counts, whole. malmm then looks at the other's.

    videos    processor_config.json "video_processor", video_preprocessor_config.json,
              preprocessor_config.json
    pictures  processor_config.json "image_processor", preprocessor_config.json

Either preprocessor file may have it under either name too.
What is asked for is done or refused, never passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from malmm_cli.checkpoints.layout import layout_of, read_json, remedy
from malmm_cli.errors import ModelError

__all__ = ["Pixels", "read_pixels"]

# What CLIP was trained with.
_MEAN = [0.48145466, 0.4578275, 0.40821073]
_STD = [0.26862954, 0.26130258, 0.27577711]

BOTH, VIDEOS = "processor_config.json", "video_preprocessor_config.json"
PICTURES = "preprocessor_config.json"
_VIDEO, _PICTURE = "video_processor", "image_processor"
_BICUBIC = 3
_LARGEST = 1e6  # of any number here
_FLOAT16 = 65504  # the largest that a model in float16 can hold


class Pixels(NamedTuple):
    """A picture's numbers, 0 to 1, less `mean` and over `std`, by channel."""

    mean: list[float] = _MEAN
    std: list[float] = _STD


def read_pixels(folder: Path, size: tuple[Any, Any] | None = None) -> Pixels:
    """Read a folder's pixel scaling; ModelError if it is not supported.

    With `size`, (height, width) of the pictures that the image encoder takes, any other step than
    a resize to it is refused too.
    """
    where, settings = next(_found(folder), ("", {}))
    if not where:
        return Pixels()
    try:
        if not isinstance(settings, dict):
            raise ValueError("image_processor and video_processor must be JSON objects")
        if size is not None:
            _refuse_other_steps(settings, size)
        return _scaled(settings)
    except ValueError as error:
        raise ModelError(f"{folder / where}: {error}", hint=remedy(folder)) from error


def _found(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield the places with settings in order of priority: name and content."""
    both, video, picture = (_content(folder, name) for name in (BOTH, VIDEOS, PICTURES))
    is_for_videos = _is_for_videos(folder, both, picture, video)
    videos = [(BOTH, both.get(_VIDEO)), (VIDEOS, _inside(video, _VIDEO, _PICTURE))]
    pictures = [(BOTH, both.get(_PICTURE))]
    either = (PICTURES, _inside(picture, _PICTURE, _VIDEO))
    order = [*videos, either, *pictures] if is_for_videos else [*pictures, either, *videos]
    flat = {key: value for key, value in both.items() if key in ("image_mean", "image_std")}
    yield from ((name, content) for name, content in [*order, (BOTH, flat)] if content)


def _inside(content: dict[str, Any], *names: str) -> Any:
    """What a file has under the first of the names that it knows, or else all of it."""
    return next((content[name] for name in names if content.get(name) is not None), content)


def _is_for_videos(folder: Path, *known: dict[str, Any]) -> bool:
    """Whether transformers would load the video processor for this folder."""
    kind = next((one["processor_class"] for one in known if one.get("processor_class")), None)
    layout = layout_of(folder)
    return layout.reads_videos if kind is None else bool(kind == layout.video_processor)


def _content(folder: Path, name: str) -> dict[str, Any]:
    return read_json(folder / name) if os.path.lexists(folder / name) else {}


def _refuse_other_steps(settings: dict[str, Any], due: tuple[Any, Any]) -> None:
    """Raise ValueError for anything but one bicubic resize to (height, width) `due`."""
    if not _flag(settings, "do_resize", True):
        raise ValueError("do_resize is false, but the image encoder takes only one size")
    if settings.get("resample") not in (None, _BICUBIC):
        raise ValueError(
            f"resample is {str(settings['resample'])[:80]}, but only 3 (bicubic) is supported"
        )
    for step in ("do_pad", "do_flip_channel_order", "do_grayscale", "do_thumbnail"):
        if _flag(settings, step, False):
            raise ValueError(f"{step} is not supported")
    _flag(settings, "do_convert_rgb", True)  # frames always are RGB
    sizes = ["size", *(["crop_size"] if _flag(settings, "do_center_crop", False) else [])]
    for name in sizes:
        size = settings.get(name)
        sides = [size.get("height"), size.get("width")] if isinstance(size, dict) else size
        sides = sides if isinstance(sides, list) else [sides, sides]
        if size is not None and sides != list(due):
            raise ValueError(
                f"{name} is {str(size)[:80]}, but the image encoder takes {due[0]} × {due[1]}"
            )


def _scaled(settings: dict[str, Any]) -> Pixels:
    """Mean and spread for pixels from 0 to 1; transformers' are for pixels times a factor."""
    mean, std = _three(settings, "image_mean", _MEAN), _three(settings, "image_std", _STD)
    if 0 in std:
        raise ValueError("image_std must be three numbers other than 0")
    factor = settings.get("rescale_factor")
    factor = 1 / 255 if factor is None else factor
    if not _is_number(factor) or not factor:
        raise ValueError("rescale_factor must be a number other than 0")
    if not _flag(settings, "do_rescale", True):
        factor = 1
    if not _flag(settings, "do_normalize", True):
        mean, std = [0.0] * 3, [1.0] * 3
    times = 255 * factor
    if times != 1:
        mean, std = [value / times for value in mean], [value / times for value in std]
    for less, over in zip(mean, std, strict=True):
        if max(abs(less), abs(over)) > _LARGEST or abs(less) + 1 > _FLOAT16 * abs(over):
            raise ValueError(
                "image_mean, image_std or rescale_factor is out of range: pixel values would "
                f"exceed {_FLOAT16}"
            )
    return Pixels(mean, std)


def _three(settings: dict[str, Any], name: str, due: list[float]) -> list[float]:
    """Return one number per channel; a single number applies to all."""
    values = settings.get(name)
    if values is None:
        return due
    values = values if isinstance(values, list) else [values] * 3
    if len(values) != 3 or not all(map(_is_number, values)):
        raise ValueError(f"{name} must be three numbers")
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and abs(value) <= _LARGEST


def _flag(settings: dict[str, Any], name: str, due: bool) -> bool:
    value = settings.get(name)
    if value not in (None, True, False):
        raise ValueError(f"{name} must be true or false")
    return due if value is None else bool(value)
