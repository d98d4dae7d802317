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
from typing import Annotated, Any, NamedTuple

from msgspec import Meta, Struct

from malmm_cli.checkpoints.layout import layout_of, read_json, remedy
from malmm_cli.errors import ModelError
from malmm_cli.files.schema import SchemaError, checked

__all__ = ["BOTH", "PICTURES", "VIDEOS", "Pixels", "read_pixels"]

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


_Number = Annotated[float, Meta(ge=-_LARGEST, le=_LARGEST)]
# a list, since msgspec 0.22 crashes on a limited number | a tuple of fixed length
_Channels = Annotated[list[_Number], Meta(min_length=3, max_length=3)]


class _Settings(Struct):
    """A processor's steps for a picture; null is the same as no such field."""

    do_resize: bool | None = None
    do_center_crop: bool | None = None
    do_convert_rgb: bool | None = None  # frames always are RGB
    do_rescale: bool | None = None
    do_normalize: bool | None = None
    do_pad: bool | None = None
    do_flip_channel_order: bool | None = None
    do_grayscale: bool | None = None
    do_thumbnail: bool | None = None
    size: Any = None
    crop_size: Any = None
    resample: Any = None
    rescale_factor: _Number | None = None
    image_mean: _Number | _Channels | None = None
    image_std: _Number | _Channels | None = None


# What a field must be, where it is not true or false.
_MUST_BE = {
    "": "image_processor and video_processor must be JSON objects",
    "image_mean": "image_mean must be three numbers",
    "image_std": "image_std must be three numbers",
    "rescale_factor": "rescale_factor must be a number other than 0",
}


def read_pixels(folder: Path, size: tuple[Any, Any] | None = None) -> Pixels:
    """Read a folder's pixel scaling; ModelError if it is not supported.

    With `size`, (height, width) of the pictures that the image encoder takes, any other step than
    a resize to it is refused too.
    """
    where, content = next(_found(folder), ("", {}))
    if not where:
        return Pixels()
    try:
        settings = checked(content, _Settings)
        if size is not None:
            _refuse_other_steps(settings, size)
        return _scaled(settings)
    except SchemaError as error:
        field = error.field.partition("[")[0]
        reason = _MUST_BE.get(field, f"{field} must be true or false")
    except ValueError as error:
        reason = str(error)
    raise ModelError(f"{folder / where}: {reason}", hint=remedy(folder))


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


def _refuse_other_steps(settings: _Settings, expected: tuple[Any, Any]) -> None:
    """Raise ValueError for anything but one bicubic resize to (height, width) `expected`."""
    if settings.do_resize is False:
        raise ValueError("do_resize is false, but the image encoder takes only one size")
    if settings.resample not in (None, _BICUBIC):
        resample = str(settings.resample)[:80]
        raise ValueError(f"resample is {resample}, but only 3 (bicubic) is supported")
    for step in ("do_pad", "do_flip_channel_order", "do_grayscale", "do_thumbnail"):
        if getattr(settings, step):
            raise ValueError(f"{step} is not supported")
    for name in ("size", "crop_size") if settings.do_center_crop else ("size",):
        size = getattr(settings, name)
        sides = _sides(size)
        if sides and (sides * 2 if len(sides) == 1 else sides) != list(expected):
            raise ValueError(
                f"{name} is {str(size)[:80]}, but the image encoder takes "
                f"{expected[0]} × {expected[1]}"
            )


def _sides(size: Any) -> list[Any]:
    """The sides that a picture gets, which may be given by names, as a list or as one number."""
    match size:
        case None:
            return []
        case {"height": height, "width": width}:
            return [height, width]
        case [*sides]:
            return sides
    return [size]


def _scaled(settings: _Settings) -> Pixels:
    """Mean and spread for pixels from 0 to 1; transformers' are for pixels times a factor."""
    mean, std = _by_channel(settings.image_mean, _MEAN), _by_channel(settings.image_std, _STD)
    if 0 in std:
        raise ValueError("image_std must be three numbers other than 0")
    factor = 1 / 255 if settings.rescale_factor is None else settings.rescale_factor
    if not factor:
        raise ValueError(_MUST_BE["rescale_factor"])
    if settings.do_rescale is False:
        factor = 1
    if settings.do_normalize is False:
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


def _by_channel(values: float | list[float] | None, default: list[float]) -> list[float]:
    """One number per channel; a single number applies to all."""
    if values is None:
        return default
    return values if isinstance(values, list) else [values] * 3
