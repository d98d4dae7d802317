"""A video or a memory file and prompts → results: a caption, or an answer to each question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from malmm_cli.models.base import Context, VideoModel
from malmm_cli.models.capacity import answers_at_once
from malmm_cli.models.device import Clock
from malmm_cli.pipeline.features import Video
from malmm_cli.pipeline.loading import Model, capacity
from malmm_cli.pipeline.memory_file import is_memory_file, read_memory_file, recall
from malmm_cli.pipeline.watch import Progress, Watched, watch_whole
from malmm_cli.settings import ASK, CAPTION, Decoding, Settings, changed, prompts_for
from malmm_cli.types import MediaInfo, Result, Segment

__all__ = ["answered", "ask", "caption"]


def caption(
    video: Video,
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
    video: Video,
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


def answered(
    net: VideoModel[Any],
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
        found += net.generate(
            context.chosen(range(len(prompts))[part]), prompts[part], decoding, on_text
        )
    return found


@capacity()
def _results(
    video: Video,
    prompts: list[str],
    questions: Sequence[str | None],
    model: Model,
    settings: Settings,
    on_progress: Progress | None,
    on_text: Callable[[str], None] | None,
) -> list[Result]:
    path = video.path if isinstance(video, MediaInfo) else video
    kept = read_memory_file(path, model) if is_memory_file(path) else None
    if kept:
        settings = kept.settings(settings)
        seen, context = recall(kept, prompts, model, settings)
    else:
        seen, context = watch_whole(video, prompts, model, settings, on_progress)
    with Clock(model.net.device, seen.seconds)("generate"):
        found = answered(model.net, context, prompts, settings.decoding, on_text)
    return [
        _result(str(path), prompt, question, candidates, cut, model, settings, seen)
        for prompt, question, candidates, cut in zip(
            prompts, questions, found, context.warnings, strict=True
        )
    ]


def _result(
    video: str,
    prompt: str,
    question: str | None,
    candidates: list[str],
    cut: tuple[str, ...],
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
        warnings=(*seen.warnings, *cut),
    )
