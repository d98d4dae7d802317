"""From a path and prompts to results: the one loop through decoding, encoding and memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Unpack

from malmm_cli.errors import MediaError, ModelError, UsageError
from malmm_cli.events import SILENT, Events
from malmm_cli.models.base import Context, Features, Memory, Spec, VideoModel
from malmm_cli.models.capacity import is_kept, prompts_at_once
from malmm_cli.models.device import Clock
from malmm_cli.models.shortage import Step
from malmm_cli.pipeline.chunks import frames_in
from malmm_cli.pipeline.features import Video, VideoFeatures, open_features, replayed
from malmm_cli.pipeline.given import ModelGiven, check_video, given
from malmm_cli.pipeline.loading import capacity, no_help
from malmm_cli.pipeline.model import Model
from malmm_cli.settings import Changes, MemoryOptions, Settings
from malmm_cli.types import MediaInfo

__all__ = [
    "Watched",
    "read_context",
    "remembering",
    "watch",
    "watch_on",
    "watch_whole",
]


@dataclass
class Watched:
    """The part of a video seen so far: its memory, and `frames` from `first` to `last`."""

    info: MediaInfo
    memory: Memory
    frames: int = 0
    first: float = 0.0
    last: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add(self, features: Features, spec: Spec) -> None:
        """Count the frames of features."""
        self.first = self.first if self.frames else float(features.seconds[0, 0])
        self.last = float(features.seconds[-1, 1])
        self.frames += frames_in(features, spec)


def watch(
    video: Video | VideoFeatures,
    prompts: Sequence[str],
    model: ModelGiven = None,
    settings: Settings | None = None,
    events: Events = SILENT,
    **changes: Unpack[Changes],
) -> Iterator[Watched]:
    """Decode, encode and remember a video chunk by chunk; yields what was seen after each.

    Memory does not grow with the length of the video or the number of frames, save for the tokens
    of every frame when there is no memory (length 0). The same object is yielded each time, and the
    model's `context` of its memory may be read each time. `model` is a loaded one, its name or its
    folder; `changes` are changes to `settings`. Raises MediaError if no picture could be decoded.
    """
    check_video(video, memory=False)
    if not isinstance(prompts, list | tuple) or not all(isinstance(p, str) for p in prompts):
        raise UsageError(f"prompts must be a list of strings, not {prompts!r}")
    video, model, settings = given("caption", video, model, settings, events, changes)
    return _told(_watch(video, prompts, model, settings, events))


def _told(seen: Iterator[Watched]) -> Iterator[Watched]:
    with capacity(without=("beams",)):
        yield from seen


def watch_on(
    video: Video | VideoFeatures,
    memory: Memory,
    offset: float,
    model: Model,
    settings: Settings,
    events: Events = SILENT,
) -> Iterator[Watched]:
    """`watch` with a memory that has seen others: this video begins at `offset` seconds there.

    What is yielded counts this video's frames and seconds alone.
    """
    return _watch(video, (), model, settings, events, (memory, offset))


def _watch(
    video: Video | VideoFeatures,
    prompts: Sequence[str],
    model: Model,
    settings: Settings,
    events: Events,
    onto: tuple[Memory, float] | None = None,
) -> Iterator[Watched]:
    net = model.net
    with _opened(video, model, settings) as found:
        clock = Clock(net.device, found.seconds)
        number, per, done = found.total - found.skipped, net.spec.frames_per_feature, 0
        net.check(prompts, settings.memory, settings.decoding, number)
        if onto is None:  # slots that cannot fill up need no room
            within = settings.memory.within(number)
            onto = net.start(prompts, within, found.total, found.skipped), 0.0
        memory, offset = onto
        seen = Watched(found.info, memory, seconds=found.seconds, warnings=found.warnings)
        for features in found.chunks:
            with clock("remember"):
                net.observe(memory, features.later(offset))
            seen.add(features, net.spec)
            done += len(features.seconds)
            events.progress(found.info.path, done * per, number * per, "frames")
            yield seen
    if not seen.frames:
        raise MediaError(f"{seen.info.path}: no frame could be decoded", kind="NoPicture")


@contextmanager
def _opened(
    video: Video | VideoFeatures, model: Model, settings: Settings
) -> Iterator[VideoFeatures]:
    """A video's features, closed in the end; those that are open already stay open."""
    if isinstance(video, VideoFeatures):
        yield video
    else:
        with closing(open_features(video, model, settings)) as found:
            yield found


@capacity()
def watch_whole(
    video: Video | VideoFeatures,
    prompts: Sequence[str],
    model: Model,
    settings: Settings,
    events: Events = SILENT,
) -> tuple[Watched, Context]:
    """A video watched to its end, and the context for the language model.

    Prompts are processed in groups if their query banks do not fit in memory together, and in
    smaller ones if memory runs out. Their features come from the cache, if there is one, or are
    held in the machine's memory; the video is decoded once more for each part where they do not fit
    there.
    """
    with ExitStack() as stack:
        found = stack.enter_context(_opened(video, model, settings))
        number, chunk = found.total - found.skipped, model.net.spec.features(model.chunk)
        size = prompts_at_once(model.net, prompts, settings, features=number, chunk=chunk)
        step = remembering(model.net, min(size, len(prompts)), settings.memory)
        held = model.cache is None and is_kept(model.net, number)
        again = isinstance(video, VideoFeatures)
        if step.size < len(prompts) and held and not again:
            found, again = replayed(found), True
        contexts, spent = list[Context](), dict[str, float]()
        done, begun = 0, False
        while done < len(prompts):
            if begun and not again:
                spent = {stage: spent.get(stage, 0.0) + s for stage, s in found.seconds.items()}
                found = stack.enter_context(_opened(video, model, settings))
            begun, left = True, -(-(len(prompts) - done) // step.size)
            update = _Part(events, len(contexts), len(contexts) + left)
            with step:
                part = prompts[done : done + step.size]
                (seen,) = deque(_watch(found, part, model, settings, update), maxlen=1)
                contexts.append(read_context(seen.memory, model, seen.seconds))
                done += len(part)
    for stage, seconds in spent.items():
        seen.seconds[stage] = seen.seconds.get(stage, 0.0) + seconds
    return seen, Context.joined(contexts)


def remembering(net: VideoModel[Any], size: int, memory: MemoryOptions) -> Step:
    """The step in which a video is remembered for so many prompts at a time."""
    doing = "remember the video for {}"
    if memory.keeps_banks:
        doing += f" in banks of {memory.length}"
    less = {"memory": "a smaller --memory", "frames": "fewer --frames"}
    less = {name: text for name, text in less.items() if name not in no_help(memory)}
    return Step(net, size, doing, "prompt", remedies=less)


def read_context(memory: Memory, model: Model, seconds: dict[str, float]) -> Context:
    """The context of a memory for the language model; raises ModelError for NaN and infinity."""
    with Clock(model.net.device, seconds)("remember"):
        context = model.net.context(memory)
    if not context.is_finite():
        raise ModelError(
            f"{model.name} produced NaN or infinite values in {model.dtype}",
            hint="try --dtype float32 or bfloat16; if that does not help, the weights are damaged",
        )
    return context


class _Part(Events):
    """Reports the progress of one part, counted from 0, as that of several that are as long."""

    def __init__(self, events: Events, number: int, parts: int) -> None:
        self._events, self._number, self._parts = events, number, parts

    def progress(self, name: str, done: int, total: int, unit: str) -> None:
        """Report it to the caller's events."""
        self._events.progress(name, self._number * total + done, self._parts * total, unit)
