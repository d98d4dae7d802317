"""From a video to a memory file, from more videos onto one, and back to a context."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from math import inf, nextafter
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from malmm_cli import hub
from malmm_cli.errors import ModelError, UsageError
from malmm_cli.events import SILENT, Events
from malmm_cli.memory.spans import Slots
from malmm_cli.models.base import Context
from malmm_cli.models.capacity import prompts_at_once
from malmm_cli.models.device import Clock
from malmm_cli.pipeline.features import Video, VideoFeatures, path_of
from malmm_cli.pipeline.given import ModelGiven, check_video, given
from malmm_cli.pipeline.loading import capacity
from malmm_cli.pipeline.memory_claims import MOST_VIDEOS
from malmm_cli.pipeline.memory_file import MemoryFile, read_memory_file
from malmm_cli.pipeline.memory_header import SAMPLING, check
from malmm_cli.pipeline.memory_onto import model_for, sampling_for
from malmm_cli.pipeline.memory_pictures import taken
from malmm_cli.pipeline.model import Model
from malmm_cli.pipeline.watch import Watched, read_context, remembering, watch, watch_on
from malmm_cli.settings import Changes, Settings
from malmm_cli.types import MediaInfo

__all__ = ["recall", "remember"]

MOST_WARNINGS = 20


@capacity(without=("beams", "frames"))
def remember(
    video: Video,
    model: ModelGiven = None,
    settings: Settings | None = None,
    events: Events = SILENT,
    *,
    onto: str | Path | None = None,
    **changes: Unpack[Changes],
) -> MemoryFile:
    """The memory of a video, which knows nothing of questions yet; raises what `watch` raises.

    `model` is a loaded one, its name or its folder; `changes` are changes to `settings`. With
    `onto`, a memory file, the video comes after what that holds: by the model that made it, and
    with its settings. The file stays as it is; `write` replaces it, or makes another one.
    """
    check_video(video, memory=False)
    if onto is not None:
        changes = sampling_for(onto, changes)
        model = model_for(onto, model)
    opened, model, settings = given("caption", video, model, settings, events, changes)
    check(settings)
    before = None if onto is None else read_memory_file(onto, model, own=True)
    if before is not None:
        opened = opened if isinstance(opened, VideoFeatures) else _probed(opened, model, settings)
        _check_goes_on(str(onto), before, model, opened)
    with events.stage(f"{path_of(video)}: remembering", "frames"):
        (seen,) = deque(_seen(opened, model, settings, events, before), maxlen=1)
        return _file(seen, model, settings, before)


def recall(
    kept: MemoryFile, prompts: Sequence[str], model: Model, settings: Settings
) -> tuple[Watched, Context]:
    """The contents of a memory file, as if the video had been watched.

    Raises CapacityError where they are too many for the model.
    """
    seconds = dict[str, float]()
    number = len(kept.counts)
    model.net.check(prompts, settings.memory, settings.decoding, number)
    clock = Clock(model.net.device, seconds)
    with clock("encode") if kept.pictures else nullcontext():
        slots = kept.as_slots(model)
    size = prompts_at_once(model.net, prompts, settings, features=number, chunk=number)
    step = remembering(model.net, min(size, len(prompts)), settings.memory)
    contexts, done = list[Context](), 0
    while done < len(prompts):
        with step:
            part = prompts[done : done + step.size]
            with clock("remember"):
                memory = model.net.restore(part, settings.memory, slots, kept.features)
            contexts.append(read_context(memory, model, seconds))
            done += len(part)
    info = MediaInfo(
        path=kept.videos[0]["name"],
        decoder="",
        width=kept.width or 0,
        height=kept.height or 0,
        duration=kept.duration,
        source_start=0.0,
        seconds=np.array([kept.first, kept.last]),
    )
    seen = Watched(info, memory, kept.frames, kept.first, kept.last, seconds, list(kept.warnings))
    return seen, Context.joined(contexts)


def _seen(
    opened: Video | VideoFeatures,
    model: Model,
    settings: Settings,
    events: Events,
    before: MemoryFile | None,
) -> Iterator[Watched]:
    """The video watched without questions, after what was there before."""
    visual = replace(settings, memory=replace(settings.memory, banks="visual"))
    if before is None:
        return watch(opened, (), model, visual, events)
    memory = model.net.restore((), visual.memory, before.as_slots(model), before.features)
    return watch_on(opened, memory, _end(before), model, visual, events)


def _end(kept: MemoryFile | None) -> float:
    """When what comes after a memory begins there: a still picture lasts no time, but is first."""
    return 0.0 if kept is None else max(kept.duration, nextafter(kept.last, inf))


def _file(seen: Watched, model: Model, settings: Settings, before: MemoryFile | None) -> MemoryFile:
    """What is remembered of a video, and of what came before it."""
    begins, info = _end(before), seen.info
    video = {"name": os.path.basename(info.path), "begins": begins}
    sampling = {name: value for name, value in settings.as_dict().items() if name in SAMPLING}
    if before is not None:  # where the first one was to end says nothing of the others
        sampling = {**before.sampling, "end": None}
    slots = seen.memory.slots()
    return MemoryFile(
        model=hub.lasting(model.name),
        reader=model.fingerprints.reader,
        videos=[*(before.videos if before else ()), video][-MOST_VIDEOS:],
        width=before.width if before else info.width,
        height=before.height if before else info.height,
        frames=seen.frames + (before.frames if before else 0),
        features=seen.memory.frames,
        first=before.first if before else seen.first,
        last=begins + seen.last,
        duration=begins + info.duration,
        sampling=sampling,
        warnings=[*(before.warnings if before else ()), *seen.warnings][:MOST_WARNINGS],
        **_held(slots, info, model, before),
    )


def _held(slots: Slots, info: MediaInfo, model: Model, before: MemoryFile | None) -> dict[str, Any]:
    """The tensors of a file: pictures where slots are single features, rows elsewhere."""
    values = {"rows": slots.rows, **slots.riders}
    counts, seconds = slots.counts.int().cpu(), slots.seconds.cpu()
    # a feature that depends on its neighbours cannot be made again from its own pictures
    if slots.shown is not None and not model.net.spec.halo:
        _check_finite(model, values)
        pictures = taken(
            info,
            slots.shown.cpu(),
            model.reader,
            offset=_end(before),
            before=before.pictures if before else None,
        )
        return {"counts": counts[:, :1], "seconds": seconds[:, :1], "pictures": pictures}
    half = {name: value.half().cpu() for name, value in values.items()}
    _check_finite(model, half)
    return {"counts": counts, "seconds": seconds, "slots": half.pop("rows"), "riders": half}


def _check_finite(model: Model, values: dict[str, Any]) -> None:
    if not all(bool(value.isfinite().all()) for value in values.values()):
        raise ModelError(
            f"{model.name} produced values too large for a memory file in {model.dtype}",
            hint="try --dtype float32; if that does not help, the weights are damaged",
        )


def _probed(video: Video, model: Model, settings: Settings) -> MediaInfo:
    if isinstance(video, MediaInfo):
        return video
    return model.reader.probe(video, settings.sampling.decoder)


def _check_goes_on(
    onto: str, before: MemoryFile, model: Model, video: MediaInfo | VideoFeatures
) -> None:
    """Raise UsageError for a video or a model that cannot go on after a memory."""
    if not model.net.spec.extends:
        raise UsageError(
            f"{onto}: {model.name} cannot go on after a memory file: its table of positions "
            "places every frame in the whole video",
            hint="join the videos, and remember the whole",
        )
    info = video.info if isinstance(video, VideoFeatures) else video
    if before.width is None or before.height is None:
        return
    sizes = (before.width, before.height), (info.width, info.height)
    if len({model.net.frame_size(*size) for size in sizes}) > 1:
        shapes = [f"{width} × {height}" for width, height in sizes]
        raise UsageError(
            f"{info.path}: its pictures, {shapes[1]}, have another shape than those of {onto}, "
            f"{shapes[0]}",
            hint="remember it in a file of its own",
        )
