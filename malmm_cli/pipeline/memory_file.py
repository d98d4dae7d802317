"""Memory files: a video's memory on disk, for questions without the video.

A file holds the visual bank as the newest feature finds it, and that feature as the last slot, in
safetensors: at most M + 1 slots, whatever the video's length. Letters: S slots, P positions of a
feature, C their width, W the width of a rider.

    slots        (S, P, C) float16    means of features, in time order, as the settings have them
    counts       (S, P) int32         features in each
    seconds      (S, P, 2) float64    when the first and the last picture of each is shown
    riders.NAME  (S, P, W) float16    the riders of these features, with the same weights

Files of version 1 have `times` in float32 in place of `seconds`; they are read too.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Unpack

import numpy as np
from msgspec import Meta, Struct, structs, to_builtins
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from malmm_cli import hub
from malmm_cli.calls import public
from malmm_cli.errors import MediaError, ModelError, UsageError
from malmm_cli.events import SILENT, Events
from malmm_cli.files.schema import checked
from malmm_cli.files.strict_json import load
from malmm_cli.formats import check_writable, open_whole
from malmm_cli.memory.spans import Slots
from malmm_cli.models.base import Context, Spec
from malmm_cli.models.capacity import prompts_at_once
from malmm_cli.models.device import Clock
from malmm_cli.pipeline.feature_files import checksum, held_in
from malmm_cli.pipeline.features import Video, path_of
from malmm_cli.pipeline.given import ModelGiven, check_video, given
from malmm_cli.pipeline.loading import capacity
from malmm_cli.pipeline.memory_header import (
    FORMAT,
    MOST_SLOTS,
    REBUILD,
    RIDER,
    SAMPLING,
    VERSIONS,
    check,
    checking,
    is_memory_file,
    read_metadata,
)
from malmm_cli.pipeline.model import Model
from malmm_cli.pipeline.watch import Watched, read_context, watch
from malmm_cli.settings import Changes, Settings, changed
from malmm_cli.types import MediaInfo

__all__ = [
    "SAMPLING",
    "MemoryFile",
    "check",
    "is_memory_file",
    "read_memory_file",
    "recall",
    "remember",
]

MOST_WARNINGS = 20
# what a file leaves out of its settings
_USUAL: dict[str, Any] = {"merge": "token", "mean": "weighted", "memory_seed": 0}
MOST = 2**31  # seconds, and frames

Seconds = Annotated[float, Meta(gt=-MOST, lt=MOST)]


@dataclass(frozen=True)
class MemoryFile:
    """A memory of a video: tensors as above, and where they come from.

    `reader` is a fingerprint of the model's part that made them, `sampling` the settings that did.
    So many `frames` were seen, from `first` to `last` seconds of `duration`.
    """

    slots: Tensor = field(repr=False)
    counts: Tensor = field(repr=False)
    seconds: Tensor = field(repr=False)
    model: str
    reader: str
    video: str
    frames: int
    first: float
    last: float
    duration: float
    sampling: dict[str, Any]
    warnings: list[str]
    riders: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the file, by their names there, in the order of their checksum."""
        riders = {f"{RIDER}{name}": rider for name, rider in sorted(self.riders.items())}
        return {"slots": self.slots, "counts": self.counts, "seconds": self.seconds, **riders}

    @public
    def write(self, path: str | Path, *, overwrite: bool = False) -> int:
        """Write it whole or not at all; return its size in bytes.

        Raises UsageError for a file that exists, unless `overwrite` replaces it, and for a folder
        that does not; OutputError for what cannot be written, and for a file that another program
        made meanwhile.
        """
        check_writable(Path(path), overwrite=overwrite)
        text = json.dumps({name: getattr(self, name) for name in _About.__struct_fields__})
        crc = checksum(*self.tensors.values(), text=text)
        content = save(self.tensors, {"format": FORMAT, "about": text, "crc32": crc})
        with open_whole(Path(path), durable=True, replace=overwrite) as file:
            file.write(content)
        return len(content)

    def settings(self, settings: Settings) -> Settings:
        """Settings with those of the file in place of what was decided when it was made."""
        return changed(settings, **{**_USUAL, **self.sampling})

    def as_slots(self) -> Slots:
        """What a memory is restored from."""
        riders = {name: rider.float() for name, rider in self.riders.items()}
        return Slots(self.slots.float(), self.counts.long(), self.seconds.double(), riders)


@capacity()
def remember(
    video: Video,
    model: ModelGiven = None,
    settings: Settings | None = None,
    events: Events = SILENT,
    **changes: Unpack[Changes],
) -> MemoryFile:
    """The memory of a video, which knows nothing of questions yet; raises what `watch` raises.

    `model` is a loaded one, its name or its folder; `changes` are changes to `settings`.
    """
    check_video(video, memory=False)
    opened, model, settings = given("caption", video, model, settings, events, changes)
    check(settings)
    visual = replace(settings, memory=replace(settings.memory, banks="visual"))
    with events.stage(f"{path_of(video)}: remembering", "frames"):
        (seen,) = deque(watch(opened, (), model, visual, events), maxlen=1)
    slots = seen.memory.slots()
    half, *riders = (values.half().cpu() for values in (slots.rows, *slots.riders.values()))
    if not all(bool(values.isfinite().all()) for values in (half, *riders)):
        raise ModelError(
            f"{model.name} produced values too large for a memory file in {model.dtype}",
            hint="try --dtype float32; if that does not help, the weights are damaged",
        )
    return MemoryFile(
        slots=half,
        counts=slots.counts.int().cpu(),
        seconds=slots.seconds.cpu(),
        model=hub.lasting(model.name),
        reader=model.fingerprints.reader,
        video=os.path.basename(path_of(video)),
        frames=seen.frames,
        first=seen.first,
        last=seen.last,
        duration=seen.info.duration,
        sampling={name: value for name, value in settings.as_dict().items() if name in SAMPLING},
        warnings=seen.warnings[:MOST_WARNINGS],
        riders=dict(zip(slots.riders, riders, strict=True)),
    )


def recall(
    kept: MemoryFile, prompts: Sequence[str], model: Model, settings: Settings
) -> tuple[Watched, Context]:
    """The contents of a memory file, as if the video had been watched."""
    slots, seconds = kept.as_slots(), dict[str, float]()
    number, features = len(slots.rows), model.net.spec.features(kept.frames)
    size = prompts_at_once(model.net, prompts, settings, features=number, chunk=number)
    contexts = []
    for begin in range(0, len(prompts), size):
        part = prompts[begin : begin + size]
        with Clock(model.net.device, seconds)("remember"):
            memory = model.net.restore(part, settings.memory, slots, features)
        contexts.append(read_context(memory, model, seconds))
    info = MediaInfo(
        path=kept.video,
        decoder="",
        width=0,
        height=0,
        duration=kept.duration,
        source_start=0.0,
        seconds=np.array([kept.first, kept.last]),
    )
    seen = Watched(info, memory, kept.frames, kept.first, kept.last, seconds, list(kept.warnings))
    return seen, Context.joined(contexts)


def read_memory_file(path: str | Path, model: Model) -> MemoryFile:
    """The memory in a file, if this model made it; all of its metadata are checked.

    Raises MediaError of kind OtherVersion, OtherModel or BrokenMemory.
    """
    known = read_metadata(path)
    with checking(path), safe_open(path, framework="pt") as file:
        about = _about(known.about, known.format)
        if about["reader"] != model.fingerprints.reader:
            raise _made_by_another(path, about["model"], model.name)
        _check_shapes(held_in(file), about, known.format, model.net.spec)
        name = VERSIONS[known.format][0]
        slots, counts, seconds = (file.get_tensor(x) for x in ("slots", "counts", name))
        riders = {name: file.get_tensor(f"{RIDER}{name}") for name in model.net.spec.riders}
    kept = MemoryFile(slots=slots, counts=counts, seconds=seconds, riders=riders, **about)
    with checking(path):
        _check_numbers(kept, model.net.spec)
    return kept


def _made_by_another(path: str | Path, made: str, given: str) -> MediaError:
    """The error for weights that the slots of a file do not fit."""
    if hub.same_model(made, given):
        message, hint = f"{path}: was made with other weights of {given}", REBUILD
    else:
        message = f"{path}: was made by another model, {made}, not by {given}"
        hint = f"--model {made} can read it, or rebuild it with {given}"
    return MediaError(message, hint=hint, kind="OtherModel")


class _Sampling(Struct, forbid_unknown_fields=True):
    frames: int | None
    fps: int | float | None
    max_frames: int | None
    start: int | float | None
    end: int | float | None
    decoder: str
    memory: int
    policy: str
    merge: str = _USUAL["merge"]
    mean: str = _USUAL["mean"]
    memory_seed: int = _USUAL["memory_seed"]


class _About(Struct, forbid_unknown_fields=True):
    """The metadata of a file."""

    model: str
    reader: str
    video: str
    frames: Annotated[int, Meta(gt=0, lt=MOST)]
    first: Seconds
    last: Seconds
    duration: Seconds
    sampling: _Sampling
    warnings: list[str]

    def __post_init__(self) -> None:
        """Raise ValueError for values that do not go together."""
        try:
            check(changed(Settings("{}"), **structs.asdict(self.sampling)))
        except UsageError as error:
            raise ValueError(f"inconsistent metadata: {error.message}") from error
        if not self.first <= self.last or not (self.sampling.start or 0) <= self.duration:
            raise ValueError("inconsistent metadata")


def _about(text: str, version: str) -> dict[str, Any]:
    """The metadata of a file, checked; ValueError where they are not valid."""
    content = load(text)
    content["reader"] = content.pop(VERSIONS[version][2])
    about: dict[str, Any] = to_builtins(checked(content, _About))
    return about


def _check_shapes(
    found: dict[str, tuple[str, list[int]]], about: dict[str, Any], version: str, spec: Spec
) -> None:
    """Raise ValueError for tensors that are not what the model needs, before they are read."""
    number, patches, _ = found["slots"][1]
    shapes = spec.shapes(number, patches)
    name, dtype, _ = VERSIONS[version]
    expected = {
        "slots": ("F16", shapes["rows"]),
        "counts": ("I32", shapes["rows"][:2]),
        name: (dtype, [*shapes["rows"][:2], 2]),
        **{rider: ("F16", shape) for rider, shape in shapes.items() if rider.startswith(RIDER)},
    }
    most = min(about["sampling"]["memory"] + 1, spec.features(about["frames"]), MOST_SLOTS)
    if found != expected or not 0 < number <= most:
        raise ValueError(f"it holds {found}")


def _check_numbers(kept: MemoryFile, spec: Spec) -> None:
    """Raise ValueError for numbers that no memory can have."""
    drops = kept.sampling["policy"] == "fifo"
    seen = len(kept.slots) if drops else spec.features(kept.frames)
    counted = (kept.counts > 0).all() and (kept.counts.long().sum(0) == seen).all()
    if not (counted and all(values.isfinite().all() for values in kept.tensors.values())):
        raise ValueError("counts or times are inconsistent")
