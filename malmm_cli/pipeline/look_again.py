"""A second look: the moments that a question looks at, frame by frame among half of the memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain

from torch import Tensor

from malmm_cli.errors import UsageError
from malmm_cli.memory.spans import Slots
from malmm_cli.models.base import Context, Features, LooksAgain
from malmm_cli.pipeline.features import open_features
from malmm_cli.pipeline.model import Model
from malmm_cli.pipeline.watch import Watched
from malmm_cli.settings import Settings
from malmm_cli.types import MediaInfo

__all__ = ["Span", "check_can_look", "shown"]

Span = tuple[float, float]  # seconds


def check_can_look(settings: Settings, *, has_video: bool) -> None:
    """Raise UsageError where a second look is asked for without the video."""
    if settings.look_again and not has_video:
        raise UsageError(
            "--look-again needs the video; a memory file has no frames to look at again",
            hint="ask the video, or leave --look-again out",
        )


def shown(
    seen: Watched, context: Context, prompts: Sequence[str], model: Model, settings: Settings
) -> Iterator[tuple[list[int], Context, list[Span] | None]]:
    """Yield prompts by their numbers, what the language model is given for them, and the moments.

    Without a second look that is one context for all prompts. With one each prompt has its own:
    half of what the memory may hold shows moments frame by frame, the rest the whole video.
    """
    if not settings.look_again:
        yield [*range(len(prompts))], context, None
        return
    net = model.net
    assert isinstance(net, LooksAgain)
    slots = seen.memory.slots()
    budget = max(len(slots.rows) // 2, 1)
    for index, looks in enumerate(net.looks_at(context, prompts)):
        spans = _spans(slots, looks, min(settings.look_again, budget))
        each = max(budget // len(spans), 1) * net.spec.frames_per_feature
        parts = [_frames(seen.info, span, each, model, settings, seen) for span in spans]
        features = Features.joined([*chain(*parts)])
        yield [index], net.look_again(seen.memory, features, [prompts[index]]), spans


def _spans(slots: Slots, looks: Tensor, number: int) -> list[Span]:
    """The moments of the slots that are looked at most, in order, those that touch as one.

    A slot reaches halfway to those beside it, so that one of a single frame has a moment too.
    """
    seconds = slots.seconds.mean(1)
    middle = (seconds[:-1, 1] + seconds[1:, 0]) / 2
    begins = [float(seconds[0, 0]), *middle.tolist()]
    ends = [*middle.tolist(), float(seconds[-1, 1])]
    chosen = sorted(looks[: len(begins)].topk(min(number, len(begins))).indices.tolist())
    spans: list[Span] = []
    for place in chosen:
        begin, end = begins[place], max(ends[place], begins[place])
        if spans and begin <= spans[-1][1]:
            begin = spans.pop()[0]
        spans.append((begin, end))
    return spans


def _frames(
    info: MediaInfo, span: Span, number: int, model: Model, settings: Settings, seen: Watched
) -> list[Features]:
    """The features of so many frames of a moment, decoded again, or from the cache."""
    begin, end = span
    sampling = replace(
        settings.sampling,
        frames=number,
        fps=None,
        max_frames=None,
        start=begin,
        end=end if end > begin else None,
    )
    if end <= begin:
        sampling = replace(sampling, frames=1)
    with closing(open_features(info, model, replace(settings, sampling=sampling))) as found:
        chunks = list(found.chunks)
    for stage, seconds in found.seconds.items():
        seen.seconds[stage] = seen.seconds.get(stage, 0.0) + seconds
    return chunks
