"""From a path and prompts to results: the one loop through decoding, encoding and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from malmm_cli.data import MediaInfo, Result, Segment
from malmm_cli.errors import MediaError, ModelError
from malmm_cli.footage import Footage, as_features, encode, open_footage, replayed
from malmm_cli.loading import Model, capacity, load
from malmm_cli.memory_file import MemoryFile, is_memory_file, read_memory_file
from malmm_cli.models import InstructBlip
from malmm_cli.models.base import Context
from malmm_cli.models.device import Clock
from malmm_cli.models.generation import check_context
from malmm_cli.models.memory import Memory
from malmm_cli.models.text import Texts
from malmm_cli.room import answers_at_once, is_kept, prompts_at_once
from malmm_cli.settings import ASK, CAPTION, Decoding, Settings, changed, prompts_for

__all__ = [
    "Footage",
    "Model",
    "Watched",
    "answered",
    "ask",
    "capacity",
    "caption",
    "encode",
    "load",
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


def caption(
    video: str | Path,
    *,
    model: Model,
    settings: Settings = CAPTION,
    on_progress: Progress | None = None,
    on_text: Callable[[str], None] | None = None,
    **changes: Any,
) -> Result:
    """One text about a video; `changes` are fields of `Settings` or of `Decoding`.

    `on_text` is told the text piece by piece as it comes, which takes a search without beams.
    """
    settings = changed(settings, **changes)
    prompts = [settings.prompt]
    return _results(video, prompts, [None], model, settings, on_progress, on_text)[0]


def ask(
    video: str | Path,
    questions: Sequence[str],
    *,
    model: Model,
    settings: Settings = ASK,
    on_progress: Progress | None = None,
    on_text: Callable[[str], None] | None = None,
    **changes: Any,
) -> list[Result]:
    """Answers to questions about a video, which is decoded and encoded once for all of them.

    `on_text` is as that of `caption`, where there is one question alone.
    """
    questions = [questions] if isinstance(questions, str) else list(questions)
    settings = changed(settings, **changes)
    prompts = prompts_for(questions, settings)
    return _results(video, prompts, list(questions), model, settings, on_progress, on_text)


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
    net = model.net
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


def answered(
    net: InstructBlip,
    context: Context,
    prompts: Sequence[str],
    decoding: Decoding,
    on_text: Callable[[str], None] | None = None,
) -> list[list[str]]:
    """Texts after a context for B prompts, as `generate` has them, as many at once as fit.

    What is drawn with a seed for a prompt does not hang on the others.
    """
    size = answers_at_once(net, context.tokens.shape[1], prompts, decoding)
    if decoding.sample and decoding.seed is not None:
        size = 1
    found: list[list[str]] = []
    for begin in range(0, len(prompts), size):
        part = slice(begin, begin + size)
        found += net.generate(context.chosen(part), prompts[part], decoding, on_text)
    return found


@capacity()
def _results(
    video: str | Path,
    prompts: list[str],
    questions: Sequence[str | None],
    model: Model,
    settings: Settings,
    on_progress: Progress | None,
    on_text: Callable[[str], None] | None,
) -> list[Result]:
    kept = read_memory_file(video, model) if is_memory_file(video) else None
    if kept:
        settings = kept.settings(settings)
        seen, context = recall(kept, prompts, model, settings)
    else:
        seen, context = watch_whole(video, prompts, model, settings, on_progress)
    with Clock(model.net.device, seen.seconds)("generate"):
        found = answered(model.net, context, prompts, settings.decoding, on_text)
    return [
        _result(str(video), prompt, question, candidates, model, settings, seen)
        for prompt, question, candidates in zip(prompts, questions, found, strict=True)
    ]


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


def _result(
    video: str,
    prompt: str,
    question: str | None,
    candidates: list[str],
    model: Model,
    settings: Settings,
    seen: Watched,
) -> Result:
    duration = seen.info.duration
    sampling, memory = settings.sampling, settings.memory
    end = duration if sampling.end is None else min(sampling.end, duration)
    return Result(
        video=video,
        task="caption" if question is None else "ask",
        prompt=prompt,
        question=question,
        text=candidates[0],
        candidates=tuple(candidates),
        segments=(Segment(sampling.start or 0.0, end, candidates[0]),),
        model=model.name,
        revision=model.revision,
        device=model.device,
        dtype=model.dtype,
        memory=memory.length,
        policy=memory.policy,
        banks=memory.banks,
        frames=seen.frames,
        first=seen.first,
        last=seen.last,
        duration=duration,
        seconds=dict(seen.seconds),
        warnings=(*seen.warnings, *_cut(prompt, model.net.texts)),
    )


def _cut(prompt: str, texts: Texts) -> list[str]:
    """A warning if the Q-Former does not read the whole prompt; the language model does."""
    length, limit = texts.instruction_length(prompt), texts.instruction_limit
    if length <= limit:
        return []
    return [f"the prompt has {length} tokens, of which the Q-Former reads the last {limit} alone"]
