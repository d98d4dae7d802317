"""Two paths' readings of the same prompts → how far they agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import torch

from malmm_cli.check.clip import Question
from malmm_cli.errors import ModelError
from malmm_cli.models.reading import Reading

__all__ = ["LARGEST", "PIXELS", "answers", "logits", "pixels", "prompts"]

# Rounding: the largest difference of logits, as a share of the largest of them.
LARGEST = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 5e-2}
PIXELS = 1e-4  # the same for pixels, which are about 1 and always float32

_AROUND = 12  # tokens shown from the first difference on


def prompts(
    ours: Sequence[Reading], theirs: Sequence[Reading], spell: Callable[[list[int]], str]
) -> dict[str, Any]:
    """Whether the prompts are equal token by token, or where they differ first.

    `spell` turns ids into text.
    """
    found: dict[str, Any] = {
        "tokens": [len(reading.ids) for reading in ours],
        "equal": True,
        "first_difference": None,
    }
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        place = _first_difference(one.ids, other.ids)
        if place is None:
            continue
        window = slice(place, place + _AROUND)
        shown = {"malmm": spell(one.ids[window]), "transformers": spell(other.ids[window])}
        return {
            **found,
            "equal": False,
            "first_difference": {"question": number, "token": place, **shown},
        }
    return found


def logits(ours: Sequence[Reading], theirs: Sequence[Reading], dtype: str) -> dict[str, Any]:
    """The largest difference at the tokens behind the video, as a share of the largest logit.

    It is None where prompts differ: there is nothing to compare then. Raises ModelError for logits
    that are not finite.
    """
    found: dict[str, Any] = {"largest_difference": None, "allowed": LARGEST[dtype], "agree": False}
    for path, readings in {"malmm": ours, "transformers": theirs}.items():
        if not all(torch.isfinite(reading.logits).all() for reading in readings):
            raise ModelError(
                f"{path} computed NaN or infinite values in {dtype}",
                hint="try --dtype float32; if that does not help, the weights are damaged",
            )
    if any(one.ids != other.ids for one, other in zip(ours, theirs, strict=True)):
        return found
    largest = max(
        float((one.logits - other.logits).abs().max() / other.logits.abs().max())
        for one, other in zip(ours, theirs, strict=True)
    )
    return {**found, "largest_difference": largest, "agree": largest <= LARGEST[dtype]}


def pixels(largest: float | None) -> dict[str, Any]:
    """The largest difference of pixels; None for pictures of another shape."""
    agree = largest is not None and largest <= PIXELS
    return {"largest_difference": largest, "allowed": PIXELS, "agree": agree}


def answers(
    questions: Sequence[Question], ours: Sequence[Reading], theirs: Sequence[Reading], dtype: str
) -> list[dict[str, Any]]:
    """Both greedy answers to each question, and whether malmm's is right.

    They agree if they are equal, or part where transformers' own choice is within rounding.
    """
    return [
        {
            "question": question.text,
            "accepted": list(question.accepted),
            "malmm": one.answer,
            "transformers": other.answer,
            "agree": one.answer == other.answer or _is_tie(one, other, LARGEST[dtype]),
            "right": question.is_right(one.answer),
        }
        for question, one, other in zip(questions, ours, theirs, strict=True)
    ]


def _is_tie(one: Reading, other: Reading, allowed: float) -> bool:
    """Whether answers part at a token that transformers' logits hardly prefer to malmm's."""
    place = _first_difference(one.tokens, other.tokens)
    if other.steps is None or place is None or place >= min(len(one.tokens), len(other.tokens)):
        return False
    step = other.steps[place]
    lead = step[other.tokens[place]] - step[one.tokens[place]]
    return bool(lead <= allowed * step.abs().max())


def _first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """Where two rows of ids differ first; None where they do not."""
    pairs = enumerate(zip_longest(one, other))
    return next((place for place, (x, y) in pairs if x != y), None)
