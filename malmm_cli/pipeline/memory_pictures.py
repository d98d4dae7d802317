"""Pictures in a memory file: one real frame, or pair of frames, stands for each slot.

They are JPEG files, small ones, and mean the same to every model: whichever is asked scales them to
its own frames and encodes them.

Letters: S slots, N pictures, B bytes of all of them.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from malmm_cli.errors import MediaError
from malmm_cli.media import Reader
from malmm_cli.media.geometry import Pixels, resize
from malmm_cli.models.base import Features, VideoModel
from malmm_cli.pipeline.chunks import encoding
from malmm_cli.types import MediaInfo

__all__ = ["LONGEST", "Pictures", "taken"]

LONGEST = 768  # pixels of the longer side
QUALITY = 85  # of JPEG: about 70 kB for a photograph of 768 × 432
LARGEST = 2**21  # bytes of one: more than such a picture has uncompressed
FAULTS = (OSError, SyntaxError, ValueError, EOFError)  # of broken pictures


@dataclass(frozen=True)
class Pictures:
    """The pictures of S slots: `files` in order of time, and when they are `shown`.

    `shown` (S, 2) float64 are the seconds of the first and the last picture of the feature that a
    slot is; where these are one, so is the picture. A tensor file has them as `pictures` (B,)
    uint8, one after the other, `sizes` (N,) int32 in bytes, and `shown`.
    """

    shown: Tensor
    files: tuple[bytes, ...] = field(repr=False)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a file holds of them."""
        content = torch.frombuffer(bytearray(b"".join(self.files)), dtype=torch.uint8)
        sizes = torch.tensor([len(file) for file in self.files], dtype=torch.int32)
        return {"pictures": content, "shown": self.shown, "sizes": sizes}

    @staticmethod
    def of(tensors: Mapping[str, Tensor]) -> Pictures:
        """Read what `tensors` gave; ValueError where they are not so many small, whole ones."""
        content, shown, sizes = (tensors[name] for name in ("pictures", "shown", "sizes"))
        ends = [0, *accumulate(sizes.tolist())]
        if not all(0 < size <= LARGEST for size in sizes.tolist()) or ends[-1] != len(content):
            raise ValueError("sizes of pictures are inconsistent")
        raw = content.numpy().tobytes()
        found = Pictures(shown, tuple(raw[begin:end] for begin, end in pairwise(ends)))
        if len(sizes) != len(found.seconds):
            raise ValueError(f"it has {len(sizes)} pictures for {len(found.seconds)} times")
        for file in found.files:
            _pixels(file)
        return found

    @property
    def seconds(self) -> list[float]:
        """When each picture is shown, (N,)."""
        return [second for pair in self.shown.tolist() for second in dict.fromkeys(pair)]

    def encoded(self, net: VideoModel[Any], size: tuple[int, int], chunk: int) -> Features:
        """What a model makes of them, a feature a slot, on the CPU in float32.

        `size` is that of its frames; so many of them are encoded at once.
        """
        spec, per = net.spec, net.spec.frames_per_feature
        slots, parts, begin = [*self._slots()], list[Features](), 0
        step = encoding(net, min(1 if spec.halo else max(chunk // per, 1), len(slots)) * per)
        while begin < len(slots):
            with step:
                some = slice(begin, begin + step.size // per)
                frames = [file for files in slots[some] for file in _spread(files, per)]
                pixels = np.stack([resize(_pixels(file), size) for file in frames])
                ends, shares = self.shown[some], torch.linspace(0, 1, per, dtype=torch.float64)
                seconds = torch.lerp(ends[:, :1], ends[:, 1:], shares).flatten()
                found = net.encode(torch.from_numpy(pixels), seconds).to("cpu", torch.float32)
                parts.append(found)
                begin += len(found.rows)
        return Features.joined(parts)

    def _slots(self) -> Iterator[tuple[bytes, ...]]:
        """The one or two pictures of each slot."""
        files = iter(self.files)
        for first, last in self.shown.tolist():
            yield tuple(next(files) for _ in {first, last})


def taken(
    info: MediaInfo,
    shown: Tensor,
    reader: Reader,
    *,
    offset: float = 0.0,
    before: Pictures | None = None,
) -> Pictures:
    """The pictures `shown` (S, 2) seconds from the first, decoded from a video once more.

    It begins at `offset`; what lies before is among the pictures `before`, and stays as it is.
    Raises MediaError for a picture that can no longer be decoded.
    """
    known = dict(zip(before.seconds, before.files, strict=True)) if before else {}
    wanted = [second for second in Pictures(shown, ()).seconds if second not in known]
    times = info.seconds[np.searchsorted(info.seconds + offset, wanted)]
    scale = min(1.0, LONGEST / max(info.width, info.height))
    size = (max(round(info.width * scale), 1), max(round(info.height * scale), 1))
    for frame in reader.read(info, times.tolist(), size):
        known[frame.seconds + offset] = _compressed(frame.pixels)
    found = Pictures(shown, ())
    for second in found.seconds:
        if second not in known:
            message = f"{info.path}: the picture at {second - offset:.2f} s was not decoded again"
            raise MediaError(message, kind="NoPicture")
    return Pictures(shown, tuple(known[second] for second in found.seconds))


def _spread(files: tuple[bytes, ...], number: int) -> list[bytes]:
    """So many of a slot's pictures: evenly chosen, the only one again and again."""
    last = len(files) - 1
    return [files[round(k * last / max(number - 1, 1))] for k in range(number)]


def _compressed(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


def _pixels(file: bytes) -> Pixels:
    """The picture in a JPEG file; ValueError where it is damaged or none of ours."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = JpegImageFile(io.BytesIO(file))
            if max(image.size) > LONGEST or image.mode != "RGB":
                raise ValueError(f"it is {image.width} × {image.height}, {image.mode}")
            return np.asarray(image)
    except FAULTS as error:
        raise ValueError(f"a picture is damaged: {error}") from error
