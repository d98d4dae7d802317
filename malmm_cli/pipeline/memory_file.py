"""Memory files: a video's memory on disk, for questions without the video.

A file holds the visual bank as the newest feature finds it, and that feature as the last slot, in
safetensors: at most M + 1 slots, whatever the video's length. Letters: S slots, P positions of a
feature, C their width, W the width of a rider.

    slots        (S, P, C) float16    means of features, in time order, as the settings have them
    counts       (S, P) int32         features in each
    seconds      (S, P, 2) float64    when the first and the last picture of each is shown
    riders.NAME  (S, P, W) float16    the riders of these features, with the same weights

Where each slot is one whole feature, pictures stand in place of slots and riders, as
`memory_pictures` has them, and P is 1: counts and seconds hold at all positions.

Files of version 2 say less of where they come from; those of version 1 have `times` in float32 in
place of `seconds`, too. Both are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from malmm_cli import hub
from malmm_cli.calls import public
from malmm_cli.errors import MediaError
from malmm_cli.formats import check_writable, open_whole
from malmm_cli.memory.spans import Slots
from malmm_cli.models.base import Spec
from malmm_cli.pipeline.feature_files import checksum, held_in
from malmm_cli.pipeline.memory_claims import CLAIMS, claims
from malmm_cli.pipeline.memory_header import (
    FORMAT,
    MOST_SLOTS,
    REBUILD,
    RIDER,
    USUAL,
    VERSIONS,
    checking,
    read_metadata,
)
from malmm_cli.pipeline.memory_pictures import Pictures
from malmm_cli.pipeline.model import Model
from malmm_cli.settings import Settings, changed

__all__ = ["MemoryFile", "read_memory_file"]


@dataclass(frozen=True)
class MemoryFile:
    """A memory of a video, or of several one after the other: tensors as above, or `pictures`.

    `reader` is a fingerprint of the part of `model` that made it, `sampling` the settings that did.
    `videos` have a "name" each and the second at which it "begins". So many `frames`, in so many
    `features`, were seen, from `first` to `last` seconds of `duration`; their `width` and `height`
    are None where the file does not say.
    """

    counts: Tensor = field(repr=False)
    seconds: Tensor = field(repr=False)
    model: str
    reader: str
    videos: list[dict[str, Any]]
    frames: int
    features: int
    first: float
    last: float
    duration: float
    sampling: dict[str, Any]
    warnings: list[str]
    width: int | None = None
    height: int | None = None
    slots: Tensor | None = field(default=None, repr=False)
    riders: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    pictures: Pictures | None = field(default=None, repr=False)

    @property
    def holds(self) -> str:
        """What stands for the slots: "rows", which only their model reads, or "pictures"."""
        return "rows" if self.pictures is None else "pictures"

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the file, by their names there, in the order of their checksum."""
        tensors = {"counts": self.counts, "seconds": self.seconds}
        if self.pictures is not None:
            tensors |= self.pictures.tensors
        if self.slots is not None:
            riders = {f"{RIDER}{name}": rider for name, rider in self.riders.items()}
            tensors |= {"slots": self.slots, **riders}
        return {name: tensor.contiguous() for name, tensor in sorted(tensors.items())}

    @public
    def write(self, path: str | Path, *, overwrite: bool = False) -> int:
        """Write it whole or not at all; return its size in bytes.

        Raises UsageError for a file that exists, unless `overwrite` replaces it, and for a folder
        that does not; OutputError for what cannot be written, and for a file that another program
        made meanwhile.
        """
        check_writable(Path(path), overwrite=overwrite)
        text = json.dumps({name: getattr(self, name) for name in CLAIMS})
        tensors = self.tensors
        crc = checksum(*tensors.values(), text=text)
        content = save(tensors, {"format": FORMAT, "about": text, "crc32": crc})
        with open_whole(Path(path), durable=True, replace=overwrite) as file:
            file.write(content)
        return len(content)

    def settings(self, settings: Settings) -> Settings:
        """Settings with those of the file in place of what was decided when it was made."""
        return changed(settings, **{**USUAL, **self.sampling})

    def as_slots(self, model: Model) -> Slots:
        """What a model's memory is restored from; pictures are encoded."""
        counts, seconds = self.counts.long(), self.seconds.double()
        if self.pictures is None:
            assert self.slots is not None
            riders = {name: rider.float() for name, rider in self.riders.items()}
            return Slots(self.slots.float(), counts, seconds, riders)
        assert self.width is not None
        assert self.height is not None
        size = model.net.frame_size(self.width, self.height)
        made = self.pictures.encoded(model.net, size, model.chunk)
        patches = made.rows.shape[1]
        counts, seconds = counts.repeat(1, patches), seconds.repeat(1, patches, 1)
        return Slots(made.rows, counts, seconds, made.riders, self.pictures.shown)


def read_memory_file(path: str | Path, model: Model, *, own: bool = False) -> MemoryFile:
    """The memory in a file, if this model can read it; all of its metadata are checked.

    Pictures are for any model, unless it must be the one's `own`. Raises MediaError of kind
    OtherVersion, OtherModel or BrokenMemory.
    """
    known = read_metadata(path)
    with checking(path), safe_open(path, framework="pt") as file:
        about = claims(known.about, known.format)
        rows, spec = about.pop("holds") == "rows", model.net.spec
        if (rows or own) and about["reader"] != model.fingerprints.reader:
            raise _made_by_another(path, about["model"], model.name)
        about["features"] = about["features"] or spec.features(about["frames"])
        found = held_in(file)
        expected = _rows(found, known.format, spec) if rows else _pictures(found)
        most = min(about["sampling"]["memory"] + 1, about["features"], MOST_SLOTS)
        if found != expected or not 0 < found["counts"][1][0] <= most:
            raise ValueError(f"it holds {found}")
        tensors = {name: file.get_tensor(name) for name in found}
    with checking(path):
        seconds = tensors.pop(VERSIONS[known.format][0])
        if rows:
            riders = {name: tensors[f"{RIDER}{name}"] for name in spec.riders}
            held: dict[str, Any] = {"slots": tensors["slots"], "riders": riders}
        else:
            held = {"pictures": Pictures.of(tensors)}
        kept = MemoryFile(counts=tensors["counts"], seconds=seconds, **held, **about)
        _check_numbers(kept)
    return kept


def _made_by_another(path: str | Path, made: str, given: str) -> MediaError:
    """The error for weights that the slots of a file do not fit."""
    if hub.same_model(made, given):
        message, hint = f"{path}: was made with other weights of {given}", REBUILD
    else:
        message = f"{path}: was made by another model, {made}, not by {given}"
        hint = f"--model {made} can read it, or rebuild it with {given}"
    return MediaError(message, hint=hint, kind="OtherModel")


Held = dict[str, tuple[str, list[int]]]  # number type and shape of each tensor


def _rows(found: Held, version: str, spec: Spec) -> Held:
    """What a file with rows must hold, of as many slots and positions as it says."""
    number, patches, _ = found["slots"][1]
    shapes = spec.shapes(number, patches)
    name, dtype, _ = VERSIONS[version]
    return {
        "slots": ("F16", shapes["rows"]),
        "counts": ("I32", shapes["rows"][:2]),
        name: (dtype, [*shapes["rows"][:2], 2]),
        **{rider: ("F16", shape) for rider, shape in shapes.items() if rider.startswith(RIDER)},
    }


def _pictures(found: Held) -> Held:
    """What a file with pictures must hold, of as many slots and bytes as it says."""
    (number, _), (pictures,), (size,) = (found[x][1] for x in ("counts", "sizes", "pictures"))
    return {
        "counts": ("I32", [number, 1]),
        "seconds": ("F64", [number, 1, 2]),
        "shown": ("F64", [number, 2]),
        "sizes": ("I32", [min(pictures, 2 * number)]),
        "pictures": ("U8", [size]),
    }


def _check_numbers(kept: MemoryFile) -> None:
    """Raise ValueError for numbers that no memory can have."""
    seen = len(kept.counts) if kept.sampling["policy"] == "fifo" else kept.features
    counted = (kept.counts > 0).all() and (kept.counts.long().sum(0) == seen).all()
    finite = all(values.isfinite().all() for values in kept.tensors.values())
    if not (counted and finite and seen <= kept.features):
        raise ValueError("counts or times are inconsistent")
    if kept.pictures is None:
        return
    begin, end = kept.seconds[:, 0].unbind(-1)
    first, last = kept.pictures.shown.unbind(-1)
    ordered = ((begin <= first) & (first <= last) & (last <= end)).all()
    ascending = (first[1:] > last[:-1]).all()
    at_begin, at_end, counts = begin == first, end == last, kept.counts[:, 0]
    placed = torch.where(counts == 1, at_begin & at_end, at_begin | at_end | (counts > 2)).all()
    if not (ordered and ascending and placed):
        raise ValueError("times of pictures are inconsistent")
