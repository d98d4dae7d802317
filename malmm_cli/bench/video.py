"""A whole video, stage by stage, compared with other implementations.

malmm         as `malmm ask` does it
encoder-step  the same with its frames decoded before: the encoder and the step
decode        decoding alone
naive         all pixels first, then frame by frame, the whole bank projected again each time
transformers  InstructBLIP-Video on the same weights: no memory, its tokens of every frame
bound         what the encoder takes at the rate at which this machine multiplies matrices
remember      into a memory file, which then answers the questions
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from malmm_cli import media
from malmm_cli.bench.bound import fastest, matrix_rate
from malmm_cli.bench.child import in_child, peak_device_mib, peak_mib, wait
from malmm_cli.errors import CapacityError
from malmm_cli.media.sampling import choose_for
from malmm_cli.models import registry
from malmm_cli.models.base import Context
from malmm_cli.models.device import Clock
from malmm_cli.pipeline import answer, memory_file, remembering, watch
from malmm_cli.pipeline.defaults import defaults_of
from malmm_cli.pipeline.loading import load
from malmm_cli.pipeline.model import Model
from malmm_cli.settings import Changes, MemoryOptions, Settings, changed, prompts_for
from malmm_cli.types import Frame, MediaInfo

__all__ = ["FORMS", "Run", "questions", "videos"]

QUESTION = "what does the person number {} do?"
STAGES = ("open", "decode", "encode", "remember", "generate")


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

    def load(self) -> Model:
        """The model, without a network."""
        return load(self.model, device=self.device, dtype=self.dtype, offline=True)

    def settings(self) -> Settings:
        """Greedy search, so that generation takes as long for all."""
        changes: Changes = {"memory": self.memory, "beams": 1}
        changes |= {"frames": self.frames} if self.fps is None else {"fps": self.fps}
        return defaults_of(self.model).settings("ask", **changes)

    def prompts(self) -> list[str]:
        """As many different prompts as there are questions."""
        return prompts_for([QUESTION.format(n) for n in range(self.questions)], self.settings())


def videos(runs: Sequence[Run], forms: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each form of each run, as soon as it is measured.

    `seconds` by stage; `before` is what came before generation, `rate` its frames a second. A form
    that cannot be has `skipped`, which says why. `ratio` is, for malmm, `before` over the larger of
    encoder-step's and decode's, if these come first; for what comes after it, over malmm's.
    """
    for run in runs:
        before: dict[str, float] = {}
        for form in forms:
            row = {"form": form, **asdict(run), **in_child(form, **asdict(run))}
            if "skipped" not in row:
                bound = max(before.get(name, 0.0) for name in ("encoder-step", "decode"))
                other = bound if form == "malmm" else before.get("malmm", 0.0)
                row |= {"ratio": round(row["before"] / other, 3)} if other else {}
                before[form] = row["before"]
            yield row


def questions(run: Run, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Rows for one question and for each number of them, and for as many to a memory file.

    `ratio` is the time before generation over that of one question, or of the visual pass.
    """
    one = None
    for number in (1, *numbers):
        row = in_child("malmm", **asdict(dataclasses.replace(run, questions=number)))
        one = one or row["before"]
        yield {"form": "malmm", "questions": number, **row, "ratio": round(row["before"] / one, 3)}
    for number in numbers:
        row = in_child("remember", **asdict(dataclasses.replace(run, questions=number)))
        ratio = round(row["before"] / row["visual"], 3)
        yield {"form": "memory file", "questions": number, **row, "ratio": ratio}


def measure_malmm(**values: Any) -> dict[str, Any]:
    """As `malmm ask` does it."""
    run = Run(**values)
    model, settings = run.load(), run.settings()
    asked = [QUESTION.format(number) for number in range(run.questions)]
    _warm_up(model, run)
    begun = time.perf_counter()
    result = answer.ask(run.video, asked, model=model, settings=settings)[0]
    whole = time.perf_counter() - begun
    before = whole - result.seconds["generate"]
    return _row(model, result.seconds, result.frames, result.duration, before)


def measure_encoder_step(**values: Any) -> dict[str, Any]:
    """The encoder and the step, on frames that were decoded before."""
    run = Run(**values)
    model, settings, prompts = run.load(), run.settings(), run.prompts()
    _warm_up(model, run)
    frames, info = _frames(model, run)
    reader = dataclasses.replace(model, reader=_Held(model.reader, frames))
    begun = time.perf_counter()
    seen, _ = watch.watch_whole(run.video, prompts, reader, settings)
    wait(model.net.device)
    before = time.perf_counter() - begun
    return _row(model, seen.seconds, seen.frames, info.duration, before)


def measure_decode(**values: Any) -> dict[str, Any]:
    """Opening and decoding alone."""
    run = Run(**values)
    model = run.load()
    _warm_up(model, run)
    begun = time.perf_counter()
    info = model.reader.probe(run.video)
    opened = time.perf_counter() - begun
    side = model.net.frame_size(info.width, info.height)
    number = sum(
        1 for _ in model.reader.read(info, choose_for(info, run.settings().sampling).tolist(), side)
    )
    before = time.perf_counter() - begun
    seconds = {"open": opened, "decode": before - opened}
    return _row(model, seconds, number, info.duration, before)


def measure_naive(**values: Any) -> dict[str, Any]:
    """All pixels first, then frame by frame, with banks in the plain form."""
    run = Run(**values)
    if reason := _too_many(run):
        return {"skipped": reason}
    model, settings, prompts = run.load(), run.settings(), run.prompts()
    net: Any = model.net
    _warm_up(model, run)
    begun = time.perf_counter()
    frames, info = _frames(model, run)
    clock = Clock(net.device, {"decode": time.perf_counter() - begun})
    options = settings.memory.within(len(frames))
    forms, memory = _forms(model), net.start(prompts, options, len(frames)).plain()
    for frame in frames:
        with clock("encode"):
            shown = torch.tensor([frame.seconds], dtype=torch.float64)
            features = net.encode(torch.from_numpy(frame.pixels[None]), shown)
        with clock("remember"):
            tokens = forms.naive_step(net, features.rows, memory)
    before = time.perf_counter() - begun
    with clock("generate"):
        net.generate(Context(tokens), prompts, settings.decoding)
    return _row(model, clock.seconds, len(frames), info.duration, before)


def measure_transformers(**values: Any) -> dict[str, Any]:
    """InstructBLIP-Video on the same weights; skipped where its tokens do not fit."""
    run = Run(**values)
    if reason := _too_many(run):
        return {"skipped": reason}
    model, settings, prompts = run.load(), run.settings(), run.prompts()
    net: Any = model.net
    info = model.reader.probe(run.video)
    number = len(choose_for(info, settings.sampling))
    try:
        net.check(prompts, MemoryOptions(length=0), settings.decoding, number)
    except CapacityError as error:
        return {"skipped": error.message}
    forms = _forms(model)
    theirs = forms.published_model(net)
    _warm_up(model, run)
    begun = time.perf_counter()
    frames, info = _frames(model, run)
    clock = Clock(net.device, {"decode": time.perf_counter() - begun})
    with clock("encode"):
        pixels = torch.from_numpy(np.stack([f.pixels for f in frames]))
        tokens = forms.published_context(net, theirs, pixels, prompts)
    before = time.perf_counter() - begun
    with clock("generate"):
        forms.published_generate(net, tokens, prompts, settings.decoding)
    return _row(model, clock.seconds, len(frames), info.duration, before)


def measure_bound(**values: Any) -> dict[str, Any]:
    """The encoder at the measured rate of matrices, and how near to that it comes alone."""
    run = Run(**values)
    model, settings = run.load(), run.settings()
    net: Any = model.net
    info = model.reader.probe(run.video)
    number = len(choose_for(info, settings.sampling))
    rate, work = matrix_rate(net.device, net.dtype), _forms(model).encoder_work(net)
    width, height = net.frame_size(info.width, info.height)
    pixels = torch.zeros(model.chunk, height, width, 3, dtype=torch.uint8)
    shown = torch.arange(model.chunk, dtype=torch.float64)
    took = fastest(lambda: net.encode(pixels, shown), net.device) / model.chunk
    row = _row(model, {"encode": number * work / rate}, number, info.duration, number * work / rate)
    return {
        **row,
        "tera_a_second": round(rate / 1e12, 3),
        "tera_a_frame": round(work / 1e12, 4),
        "encoder_share": round(work / took / rate, 3),
    }


def measure_remember(**values: Any) -> dict[str, Any]:
    """One visual pass into a memory file, and all questions to that; `visual` is the pass alone."""
    run = Run(**values)
    model, settings, prompts = run.load(), run.settings(), run.prompts()
    _warm_up(model, run)
    begun = time.perf_counter()
    kept = remembering.remember(run.video, model, settings)
    with tempfile.TemporaryDirectory() as folder:
        size = kept.write(Path(folder) / "memory")
        visual = time.perf_counter() - begun
        kept = memory_file.read_memory_file(Path(folder) / "memory", model)
    seen, _ = remembering.recall(kept, prompts, model, settings)
    wait(model.net.device)
    before = time.perf_counter() - begun
    row = _row(model, seen.seconds, kept.frames, kept.duration, before)
    return {**row, "visual": round(visual, 3), "megabytes": round(size / 1e6, 2)}


FORMS: dict[str, Callable[..., dict[str, Any]]] = {
    "malmm": measure_malmm,
    "encoder-step": measure_encoder_step,
    "decode": measure_decode,
    "bound": measure_bound,
    "naive": measure_naive,
    "transformers": measure_transformers,
    "remember": measure_remember,
}


def _forms(model: Model) -> ModuleType:
    """The other forms of the model's family."""
    return registry.module(model.net.spec.family, "forms")


def _too_many(run: Run) -> str:
    """Why a form that is there for comparison is not measured; nothing where it is."""
    number = len(choose_for(media.probe(run.video), run.settings().sampling))
    return f"{number} frames, more than {run.compare}" if number > run.compare else ""


class _Held:
    """A reader of frames that are decoded already."""

    def __init__(self, reader: media.Reader, frames: list[Frame]) -> None:
        self.probe = reader.probe
        self._frames = frames

    def read(self, *_: Any) -> Iterator[Frame]:
        """The frames, whatever is asked for."""
        return iter(self._frames)


def _frames(model: Model, run: Run) -> tuple[list[Frame], MediaInfo]:
    """All frames that settings choose, decoded, and the video they are of."""
    info = model.reader.probe(run.video)
    times = choose_for(info, run.settings().sampling).tolist()
    side = model.net.frame_size(info.width, info.height)
    return list(model.reader.read(info, times, side)), info


def _warm_up(model: Model, run: Run) -> None:
    """Do everything once with few frames: what happens at the first time alone is not measured."""
    few = changed(run.settings(), frames=2, fps=None, memory=1, max_new_tokens=1)
    answer.ask(run.video, [QUESTION], model=model, settings=few)


def _row(
    model: Model, seconds: dict[str, float], frames: int, duration: float, before: float
) -> dict[str, Any]:
    device = model.net.device
    return {
        "seconds": {stage: round(seconds[stage], 3) for stage in STAGES if stage in seconds},
        "before": round(before, 3),
        "rate": round(frames / before, 2),
        "frames": frames,
        "duration": round(duration, 1),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else model.device,
        "dtype": model.dtype,
        "peak_mib": peak_mib(),
        "peak_device_mib": peak_device_mib(device),
    }
