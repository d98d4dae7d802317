"""From a path and prompts to results: the one loop through decoding, encoding and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from malmm_cli.errors import MediaError, ModelError
from malmm_cli.models.base import Context
from malmm_cli.models.capacity import is_kept, prompts_at_once
from malmm_cli.models.device import Clock
from malmm_cli.models.generation import check_context
from malmm_cli.models.instructblip.memory import Memory
from malmm_cli.pipeline.features import Footage, as_features, open_footage, replayed
from malmm_cli.pipeline.loading import Model, capacity
from malmm_cli.pipeline.memory_file import MemoryFile
from malmm_cli.settings import Settings
from malmm_cli.types import MediaInfo

__all__ = [
    "Footage",
    "Model",
    "Watched",
    "recall",
    "watch",
    "watch_whole",
]

Progress = Callable[[int, int], None]


@dataclass
class Watched:
    """What has been seen of a video so far: its memory, and from where to where."""

    info: MediaInfo
    memory: Memory
    frames: int = 0
    first: float = 0.0
    last: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def watch(
    video: str | Path | Footage,
    prompts: Sequence[str],
    model: Model,
    settings: Settings,
    on_progress: Progress | None = None,
) -> Iterator[Watched]:
    """Decode, encode and remember a video chunk by chunk; yields what was seen after each.

    Memory does not grow with the length of the video or the number of frames, save for the tokens
    of every frame when there is no memory (length 0). The same object is yielded each time, and the
    model's `context` of its memory may be read each time.
    """
    net: Any = model.net
    with _opened(video, model, settings) as footage:
        clock = Clock(net.device, footage.seconds)
        frames = footage.total - footage.skipped
        if settings.memory.gives_every_frame:
            visual = frames * net.num_queries
            check_context(net, visual, prompts, settings.decoding.max_new_tokens)
        # slots that cannot fill up need no room
        memory = net.start(prompts, settings.memory.within(frames), footage.total)
        memory.frames = footage.skipped
        seen = Watched(footage.info, memory, seconds=footage.seconds, warnings=footage.warnings)
        for chunk in footage.chunks:
            with clock("remember"):
                net.observe(memory, as_features(chunk))
            times = chunk[1]
            seen.first = seen.first if seen.frames else times[0]
            seen.last = times[-1]
            seen.frames += len(times)
            if on_progress:
                on_progress(seen.frames, frames)
            yield seen


@contextmanager
def _opened(video: str | Path | Footage, model: Model, settings: Settings) -> Iterator[Footage]:
    """A video's footage, closed in the end; what is footage already stays open."""
    if isinstance(video, Footage):
        yield video
    else:
        with closing(open_footage(video, model, settings)) as footage:
            yield footage


@capacity()
def watch_whole(
    video: str | Path | Footage,
    prompts: Sequence[str],
    model: Model,
    settings: Settings,
    on_progress: Progress | None = None,
) -> tuple[Watched, Context]:
    """What was seen of a video when all of it was watched, and what the language model is given.

    Prompts for whose query banks there is no room side by side are remembered part by part. Their
    features come from the cache, if there is one, or are held in the machine's memory; the video is
    decoded once more for each part where they do not fit there.
    """
    with ExitStack() as stack:
        footage = stack.enter_context(_opened(video, model, settings))
        frames = footage.total - footage.skipped
        size = prompts_at_once(model.net, prompts, settings, frames=frames, chunk=model.chunk)
        parts = [prompts[begin : begin + size] for begin in range(0, len(prompts), size)]
        held = model.cache is None and is_kept(model.net, frames)
        if len(parts) > 1 and held and not isinstance(video, Footage):
            footage = replayed(footage)
        contexts, spent = list[Context](), dict[str, float]()
        for number, part in enumerate(parts):
            if number and not held and not isinstance(video, Footage):
                spent = {stage: spent.get(stage, 0.0) + s for stage, s in footage.seconds.items()}
                footage = stack.enter_context(_opened(video, model, settings))
            update = _part_of(on_progress, number, len(parts))
            seen = _watched(footage, part, model, settings, update)
            contexts.append(_context(seen.memory, model, seen.seconds))
    for stage, seconds in spent.items():
        seen.seconds[stage] = seen.seconds.get(stage, 0.0) + seconds
    return seen, Context.joined(contexts)


def _watched(
    footage: Footage,
    prompts: Sequence[str],
    model: Model,
    settings: Settings,
    on_progress: Progress | None,
) -> Watched:
    """What was seen of footage in the end; raises MediaError where that is nothing."""
    seen = None
    for seen in watch(footage, prompts, model, settings, on_progress):  # noqa: B007
        pass
    if seen is None or not seen.frames:
        raise MediaError(f"{footage.info.path}: no picture could be decoded", kind="NoPicture")
    return seen


def _context(memory: Memory, model: Model, seconds: dict[str, float]) -> Context:
    """What the language model is given of a memory; raises ModelError for NaN and infinity."""
    with Clock(model.net.device, seconds)("remember"):
        context = model.net.context(memory)
    if not context.tokens.isfinite().all():
        raise ModelError(
            f"{model.name} produced NaN or infinite values in {model.dtype}",
            hint="try --dtype float32 or bfloat16; if that does not help, the weights are broken",
        )
    return context


def _part_of(on_progress: Progress | None, number: int, parts: int) -> Progress | None:
    """The progress of a part, counted from 0, of several that are as long."""
    if on_progress is None:
        return None
    return lambda done, total: on_progress(number * total + done, parts * total)


def recall(
    kept: MemoryFile, prompts: Sequence[str], model: Model, settings: Settings
) -> tuple[Watched, Context]:
    """What a memory file holds of a video, as if the video had been watched."""
    slots, seconds = kept.as_slots(), dict[str, float]()
    number = len(slots.rows)
    size = prompts_at_once(model.net, prompts, settings, frames=number, chunk=number)
    contexts = []
    for begin in range(0, len(prompts), size):
        part = prompts[begin : begin + size]
        with Clock(model.net.device, seconds)("remember"):
            memory = model.net.restore(part, settings.memory, slots, kept.frames)
        contexts.append(_context(memory, model, seconds))
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
