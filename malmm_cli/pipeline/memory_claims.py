"""What a memory file says of itself, checked: where it comes from, what made it, what it holds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, structs, to_builtins

from malmm_cli.errors import UsageError
from malmm_cli.files.schema import checked
from malmm_cli.files.strict_json import load
from malmm_cli.pipeline.memory_header import FORMAT, USUAL, VERSIONS, check
from malmm_cli.settings import Settings, changed

__all__ = ["CLAIMS", "MOST_VIDEOS", "claims"]

MOST = 2**31  # seconds, and frames
MOST_VIDEOS = 1000  # names that a file keeps: those of the newest

Seconds = Annotated[float, Meta(gt=-MOST, lt=MOST)]
Number = Annotated[int, Meta(gt=0, lt=MOST)]


class _Sampling(Struct, forbid_unknown_fields=True):
    frames: int | None
    fps: int | float | None
    max_frames: int | None
    start: int | float | None
    end: int | float | None
    decoder: str
    memory: int
    policy: str
    merge: str = USUAL["merge"]
    mean: str = USUAL["mean"]
    fill: str = USUAL["fill"]
    memory_seed: int = USUAL["memory_seed"]


class _Video(Struct, forbid_unknown_fields=True):
    """The name of a video, and the second at which it begins in what is remembered."""

    name: str
    begins: Seconds


class _Claims(Struct, forbid_unknown_fields=True):
    """The metadata of a file; None for what earlier versions did not say."""

    model: str
    reader: str
    videos: Annotated[list[_Video], Meta(min_length=1)]
    width: Number | None
    height: Number | None
    frames: Number
    features: Number | None
    first: Seconds
    last: Seconds
    duration: Seconds
    sampling: _Sampling
    warnings: list[str]
    holds: Literal["rows", "pictures"]

    def __post_init__(self) -> None:
        """Raise ValueError for values that do not go together."""
        try:
            check(changed(Settings("{}"), **structs.asdict(self.sampling)))
        except UsageError as error:
            raise ValueError(f"inconsistent metadata: {error.message}") from error
        known = None not in (self.width, self.height, self.features) or self.holds == "rows"
        spans = self.first <= self.last and (self.sampling.start or 0) <= self.duration
        if not (known and spans and (self.features or 1) <= self.frames):
            raise ValueError("inconsistent metadata")


CLAIMS = _Claims.__struct_fields__


def claims(text: str, version: str) -> dict[str, Any]:
    """The metadata of a file, checked; ValueError where they are not valid."""
    content = load(text)
    if version != FORMAT:
        content["reader"] = content.pop(VERSIONS[version][2])
        content["videos"] = [{"name": content.pop("video"), "begins": 0.0}]
        content |= {"width": None, "height": None, "features": None, "holds": "rows"}
    found: dict[str, Any] = to_builtins(checked(content, _Claims))
    return found
