"""A video or a memory file and prompts → results: a caption, or an answer to each question."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Unpack

from malmm_cli import __version__
from malmm_cli.events import SILENT, Events
from malmm_cli.models.base import Context, VideoModel
from malmm_cli.models.capacity import answers_at_once
from malmm_cli.models.device import Clock
from malmm_cli.models.shortage import Step
from malmm_cli.pipeline.features import Video, VideoFeatures, path_of
from malmm_cli.pipeline.given import ModelGiven, given
from malmm_cli.pipeline.loading import capacity, no_help
from malmm_cli.pipeline.look_again import Span, check_can_look, shown
from malmm_cli.pipeline.memory_file import read_memory_file
from malmm_cli.pipeline.memory_header import SAMPLING, is_memory_file
from malmm_cli.pipeline.model import Model
from malmm_cli.pipeline.remembering import recall
from malmm_cli.pipeline.watch import Watched, watch_whole
from malmm_cli.settings import (
    Changes,
    Decoding,
    Settings,
    caption_prompt,
    check_order,
    check_questions,
    prompts_for,
)
from malmm_cli.text.words import counted
from malmm_cli.types import Result, Segment

__all__ = ["answered", "ask", "caption"]

# Tokens of a video from which on they, and not the prompt, decide what an answer takes.
LONG = 256


def caption(
    video: Video,
    *,
    model: ModelGiven = None,
    settings: Settings | None = None,
    events: Events = SILENT,
    **changes: Unpack[Changes],
) -> Result:
    """One text about a video or a memory file.

    `model` is a loaded one, or the name or folder of one that is loaded for this call alone; None
    is vicuna-7b or, for a memory file, the model that made it. All other keywords are changes to
    `settings`, which by default are those of the model for captions; times may be text, "0:10".
    With one beam, `events.text` gets the text piece by piece as it is generated.

    Raises UsageError for arguments that will not do (ArgumentError for their names and types),
    MediaError for the video, ModelError and CapacityError for the model.
    """
    opened, model, settings = given(
        "caption", video, model, settings, events, changes, check=caption_prompt
    )
    return _results(opened, [caption_prompt(settings)], [None], model, settings, events)[0]


def ask(
    video: Video,
    questions: str | Sequence[str],
    *,
    model: ModelGiven = None,
    settings: Settings | None = None,
    events: Events = SILENT,
    **changes: Unpack[Changes],
) -> list[Result]:
    """Answers to questions about a video, which is decoded and encoded once for all of them.

    All else is as in `caption`; `events.text` is given words for a single question only.
    """
    questions = [questions] if isinstance(questions, str) else questions
    check_questions(questions)
    check_order(video, questions, "video comes first: malmm_cli.ask(video, questions)")
    check = partial(prompts_for, questions)
    opened, model, settings = given("ask", video, model, settings, events, changes, check=check)
    prompts = prompts_for(questions, settings)
    return _results(opened, prompts, list(questions), model, settings, events)


def answered(
    net: VideoModel[Any],
    context: Context,
    prompts: Sequence[str],
    decoding: Decoding,
    events: Events = SILENT,
) -> list[list[str]]:
    """Texts after a context for B prompts, as `generate` has them, as many at once as fit.

    What is drawn with a seed for a prompt does not hang on the others.
    """
    size = answers_at_once(net, context.tokens.shape[1], prompts, decoding)
    if decoding.sample and decoding.seed is not None:
        size = 1
    streams = events.streams and len(prompts) == 1 and decoding.beams == 1
    on_text = events.text if streams else None
    found: list[list[str]] = []
    step = _answering(net, context, min(size, len(prompts)), decoding)
    while len(found) < len(prompts):
        with step:
            part = slice(len(found), len(found) + step.size)
            own = context.chosen(range(len(prompts))[part])
            found += net.generate(own, prompts[part], decoding, on_text)
            events.progress("answering", len(found), len(prompts), "texts")
    return found


def _answering(net: VideoModel[Any], context: Context, size: int, decoding: Decoding) -> Step:
    """The step in which so many prompts are answered at a time."""
    tokens, new = context.tokens.shape[1], decoding.max_new_tokens
    doing = f"answer {{}} after {counted(tokens, 'token')} of the video"
    less = {"max_new_tokens": f"--max-new-tokens below {new}"} if new > 1 else {}
    if decoding.beams > 1:
        doing += f" with {decoding.beams} beams"
        less = {"beams": "fewer --beams", **less}
    if tokens > LONG:
        less |= {"memory": "a smaller --memory", "frames": "fewer --frames"}
    return Step(net, size, doing, "prompt", remedies=less)


@capacity()
def _results(
    video: Video | VideoFeatures,
    prompts: list[str],
    questions: Sequence[str | None],
    model: Model,
    settings: Settings,
    events: Events,
) -> list[Result]:
    path = path_of(video)
    kept = read_memory_file(path, model) if is_memory_file(path) else None
    lacking = no_help(settings.memory) if kept is None else SAMPLING
    with events.stage(path, ""), capacity(without=lacking):
        check_can_look(settings, has_video=kept is None)
        if kept:
            settings = kept.settings(settings)
            seen, context = recall(kept, prompts, model, settings)
        else:
            with events.stage("reading", "frames"):
                seen, context = watch_whole(video, prompts, model, settings, events)
        with events.stage("answering", "texts"):
            found, moments = _answers(seen, context, prompts, model, settings, events)
    return [
        _result(path, prompt, question, candidates, cut, model, settings, seen, looked)
        for prompt, question, candidates, cut, looked in zip(
            prompts, questions, found, context.warnings, moments, strict=True
        )
    ]


def _answers(
    seen: Watched,
    context: Context,
    prompts: list[str],
    model: Model,
    settings: Settings,
    events: Events,
) -> tuple[list[list[str]], list[list[Span] | None]]:
    """Texts for each prompt, and the moments that were shown to it again, if any were to be."""
    clock = Clock(model.net.device, seen.seconds)
    found: list[list[str]] = []
    moments: list[list[Span] | None] = []
    for which, own, spans in shown(seen, context, prompts, model, settings):
        asked = [prompts[k] for k in which]
        with clock("generate"):
            found += answered(model.net, own, asked, settings.decoding, events)
        moments += [spans] * len(which)
    return found, moments


def _result(
    video: str,
    prompt: str,
    question: str | None,
    candidates: list[str],
    cut: tuple[str, ...],
    model: Model,
    settings: Settings,
    seen: Watched,
    looked: list[Span] | None,
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
        **memory.compression,
        frames=seen.frames,
        first=seen.first,
        last=seen.last,
        duration=duration,
        seconds=dict(seen.seconds),
        warnings=(*seen.warnings, *cut),
        malmm=__version__,
        looked_again=None if looked is None else tuple(looked),
    )
