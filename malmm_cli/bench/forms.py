"""The forms of a whole video, each measured in the process that calls it.

malmm         as `malmm ask` does it
encoder-step  the same with its frames decoded before: the encoder and the step
decode        decoding alone
naive         all pixels first, then frame by frame, the whole bank projected again each time
transformers  transformers' class on the same weights: no memory, its tokens of every frame
bound         what the encoder takes at the rate at which this machine multiplies matrices
remember      into a memory file, which then answers the questions
call          `malmm ask` from the start of a process to its end
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from malmm_cli import media
from malmm_cli.bench.bound import fastest, matrix_rate, work_of
from malmm_cli.bench.child import peak_device_mib, peak_mib, wait
from malmm_cli.bench.marks import Marks
from malmm_cli.bench.page import STAGES
from malmm_cli.bench.video import QUESTION, Run
from malmm_cli.errors import CapacityError
from malmm_cli.media.sampling import choose_for
from malmm_cli.models import registry
from malmm_cli.models.base import Context
from malmm_cli.models.device import Clock
from malmm_cli.pipeline import answer, memory_file, remembering, watch
from malmm_cli.pipeline.model import Model
from malmm_cli.settings import MemoryOptions, changed
from malmm_cli.types import Frame, MediaInfo

__all__ = ["FORMS"]


def measure_malmm(**values: Any) -> dict[str, Any]:
    """As `malmm ask` does it."""
    run = Run(**values)
    model, settings = run.load(), run.settings()
    asked = [QUESTION.format(number) for number in range(run.questions)]
    _warm_up(model, run)
    with _marks(model) as marks:
        begun = time.perf_counter()
        result = answer.ask(run.video, asked, model=model, settings=settings)[0]
        whole = time.perf_counter() - begun
    before = whole - result.seconds["generate"]
    row = _row(model, result.seconds, result.frames, result.duration, before)
    return {**row, **_heard(marks, begun)}


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
    net, forms = model.net, _forms(model)
    if not hasattr(forms, "naive_step"):
        return {"skipped": "this kind of model projects nothing when its bank is read"}
    _warm_up(model, run)
    begun = time.perf_counter()
    frames, info = _frames(model, run)
    clock = Clock(net.device, {"decode": time.perf_counter() - begun})
    options = settings.memory.within(len(frames))
    memory = net.start(prompts, options, len(frames)).plain()
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
    """Transformers' class on the same weights; skipped where its tokens do not fit."""
    run = Run(**values)
    if reason := _too_many(run):
        return {"skipped": reason}
    model, settings, prompts = run.load(), run.settings(), run.prompts()
    net, forms = model.net, _forms(model)
    info = model.reader.probe(run.video)
    features = net.spec.features(len(choose_for(info, settings.sampling)))
    try:
        net.check(prompts, MemoryOptions(length=0), settings.decoding, features)
    except CapacityError as error:
        return {"skipped": error.message}
    theirs = forms.published_model(net)
    _warm_up(model, run)
    with _marks(model) as marks:
        begun = time.perf_counter()
        frames, info = _frames(model, run)
        decoded = time.perf_counter() - begun
        pixels = torch.from_numpy(np.stack([frame.pixels for frame in frames]))
        shown = torch.tensor([frame.seconds for frame in frames], dtype=torch.float64)
        given = (model.folder, pixels, shown, prompts, settings.decoding)
        forms.published_answers(net, theirs, *given)
        whole = time.perf_counter() - begun
    assert marks.began is not None
    before = marks.began - begun
    seconds = {"decode": decoded, "encode": before - decoded, "generate": whole - before}
    row = _row(model, seconds, len(frames), info.duration, before)
    return {**row, **_heard(marks, begun)}


def measure_bound(**values: Any) -> dict[str, Any]:
    """The encoder at the measured rate of matrices, and how near to that it comes alone."""
    run = Run(**values)
    model, settings = run.load(), run.settings()
    net, per = model.net, model.net.spec.frames_per_feature
    info = model.reader.probe(run.video)
    number = len(choose_for(info, settings.sampling))
    width, height = net.frame_size(info.width, info.height)

    def encode(frames: int) -> None:
        pixels = torch.zeros(frames, height, width, 3, dtype=torch.uint8)
        net.encode(pixels, torch.arange(frames, dtype=torch.float64))

    chunk = max(model.chunk // per, 1) * per
    rate, work = matrix_rate(net.device, net.dtype), work_of(lambda: encode(per)) / per
    took = fastest(lambda: encode(chunk), net.device) / chunk
    row = _row(model, {"encode": number * work / rate}, number, info.duration, number * work / rate)
    return {
        **row,
        "tera_a_second": round(rate / 1e12, 3),
        "tera_a_frame": round(work / 1e12, 4),
        "encoder_rate": round(1 / took, 2),
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


def measure_call(**values: Any) -> dict[str, Any]:
    """As `malmm ask` does it, nothing done before."""
    run = Run(**values)
    asked = [QUESTION.format(number) for number in range(run.questions)]
    answer.ask(run.video, asked, model=run.load(), settings=run.settings())
    return {"peak_mib": peak_mib()}


FORMS: dict[str, Callable[..., dict[str, Any]]] = {
    "malmm": measure_malmm,
    "encoder-step": measure_encoder_step,
    "decode": measure_decode,
    "bound": measure_bound,
    "naive": measure_naive,
    "transformers": measure_transformers,
    "remember": measure_remember,
    "call": measure_call,
}


def _forms(model: Model) -> ModuleType:
    """The other forms of the model's family."""
    return registry.module(model.net.spec.family, "forms")


def _marks(model: Model) -> Marks:
    """Watches the model's language model."""
    part, head = _forms(model).heard(model.net)
    return Marks(part, head, model.net.answers_on)


def _heard(marks: Marks, begun: float) -> dict[str, float]:
    """Seconds from `begun` to the first token, and those of reading prompts."""
    assert marks.first is not None
    return {"first": round(marks.first - begun, 3), "read": round(marks.read, 3)}


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
