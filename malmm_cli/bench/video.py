"""A whole video, stage by stage, compared with other implementations: see `forms`."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from malmm_cli.bench.child import in_child
from malmm_cli.pipeline.defaults import defaults_of
from malmm_cli.pipeline.loading import load
from malmm_cli.pipeline.model import Model
from malmm_cli.settings import Changes, Settings, prompts_for

__all__ = ["CALLS", "QUESTION", "Run", "calls", "questions", "videos"]

QUESTION = "what does the person number {} do?"

# Runs of one question that are measured where many are compared with one run of all.
CALLS = 3


@dataclass(frozen=True)
class Run:
    """What is measured: frames of a video by a model; `questions` are asked side by side.

    What holds all pixels and takes as long as it takes is done for at most `compare` frames.
    """

    video: str
    model: str
    device: str = "auto"
    dtype: str = "auto"
    frames: int | None = None
    fps: float | None = None
    memory: int = 20
    questions: int = 1
    compare: int = 120
    max_new_tokens: int | None = None

    def load(self) -> Model:
        """The model, without a network."""
        return load(self.model, device=self.device, dtype=self.dtype, offline=True)

    def settings(self) -> Settings:
        """Greedy search, so that generation takes as long for all."""
        changes: Changes = {"memory": self.memory, "beams": 1}
        changes |= {"frames": self.frames} if self.fps is None else {"fps": self.fps}
        if self.max_new_tokens is not None:
            changes["max_new_tokens"] = self.max_new_tokens
        return defaults_of(self.model).settings("ask", **changes)

    def prompts(self) -> list[str]:
        """As many different prompts as there are questions."""
        return prompts_for([QUESTION.format(n) for n in range(self.questions)], self.settings())


def videos(runs: Sequence[Run], forms: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each form of each run, as soon as it is measured.

    `seconds` by stage; `before` is what came before the language model, `rate` its frames a second,
    `hour` the minutes that an hour at one frame a second takes at this rate. `first` are seconds to
    the first token. A form that cannot be has `skipped`, which says why.

    `ratio` is, for malmm, `before` over the larger of encoder-step's and decode's, if these come
    first; for what comes after it, over malmm's. `encoder_ratio` is malmm's rate over that of
    encoder-step's encoder; `first_ratio` and `peak_ratio` are transformers' over malmm's.
    """
    for run in runs:
        done: dict[str, dict[str, Any]] = {}
        for form in forms:
            row = {"form": form, **asdict(run), **in_child(form, **asdict(run))}
            if "skipped" not in row:
                row |= _compared(row, done)
                done[form] = row
            yield row


def _compared(row: Mapping[str, Any], done: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """What a row is to those of the same run that were measured before it."""
    found = {"hour": round(60 * row["before"] / row["frames"], 2)}
    if row["form"] == "malmm":
        bounds = [done[name]["before"] for name in ("encoder-step", "decode") if name in done]
        other = max(bounds, default=0.0)
        alone = done.get("encoder-step", {}).get("seconds", {}).get("encode")
        if alone:
            found["encoder_ratio"] = round(alone / row["before"], 3)
    else:
        ours = done.get("malmm", {})
        other = ours.get("before", 0.0)
        if "first" in row and "first" in ours:
            peaks = [one["peak_device_mib"] or one["peak_mib"] for one in (row, ours)]
            found["first_ratio"] = round(row["first"] / ours["first"], 3)
            found["peak_ratio"] = round(peaks[0] / peaks[1], 3)
    return {**found, "ratio": round(row["before"] / other, 3)} if other else found


def questions(run: Run, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Rows for one question and for each number of them, and for as many to a memory file.

    `ratio` is the time before the language model over that of one question, or of the visual pass.
    `reading` is that time and what the language model took to read prompts, so all but the
    generation of answers; `reading_ratio` is that over one question's.
    """
    one: dict[str, Any] = {}
    for number in (1, *numbers):
        row = in_child("malmm", **asdict(dataclasses.replace(run, questions=number)))
        row["reading"] = round(row["before"] + row["read"], 3)
        one = one or row
        ratios = {
            "ratio": round(row["before"] / one["before"], 3),
            "reading_ratio": round(row["reading"] / one["reading"], 3),
        }
        yield {"form": "malmm", "questions": number, **row, **ratios}
    for number in numbers:
        row = in_child("remember", **asdict(dataclasses.replace(run, questions=number)))
        ratio = round(row["before"] / row["visual"], 3)
        yield {"form": "memory file", "questions": number, **row, "ratio": ratio}


def calls(run: Run, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Rows for each number of questions: one run that asks all, and as many runs of one.

    Seconds are those of whole processes, from loading the model to the last answer. `apart` is not
    measured: it is the mean of `measured` runs of one question, times the number of questions.
    `ratio` is `apart` over `together`.
    """
    each = statistics.mean(_process(run, 1) for _ in range(CALLS))
    for number in numbers:
        together, apart = _process(run, number), number * each
        yield {
            "questions": number,
            "together": round(together, 3),
            "apart": round(apart, 3),
            "measured": CALLS,
            "ratio": round(apart / together, 3),
        }


def _process(run: Run, number: int) -> float:
    """Seconds of a process that asks so many questions."""
    begun = time.perf_counter()
    in_child("call", **asdict(dataclasses.replace(run, questions=number)))
    return time.perf_counter() - begun
