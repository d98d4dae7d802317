"""From a path and prompts to results: the one loop through decoding, encoding and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from malmm_cli import hub, media, models
from malmm_cli.data import Frame, MediaInfo, Result, Segment
from malmm_cli.errors import CapacityError, MediaError, ModelError
from malmm_cli.generate import check_context, generate
from malmm_cli.models import InstructBlip
from malmm_cli.models.device import language_options, pick_device, pick_dtype
from malmm_cli.models.text import Texts
from malmm_cli.sampling import choose_for
from malmm_cli.settings import ASK, CAPTION, Settings, changed, prompts_for

__all__ = ["Model", "Watched", "ask", "caption", "free_memory", "load", "watch"]

# Frames decoded and encoded at a time: enough to keep a processor busy, few enough to hold.
CHUNK = 16

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Model:
    """A loaded model and what it is called."""

    net: InstructBlip = field(repr=False)
    name: str
    revision: str | None
    device: str
    dtype: str
    note: str = ""


@dataclass
class Watched:
    """What has been seen of a video so far: its tokens (B, n, D), and from where to where."""

    info: MediaInfo
    tokens: Tensor | None = None
    frames: int = 0
    first: float = 0.0
    last: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@contextmanager
def _capacity() -> Iterator[None]:
    """Tell of too little memory by CapacityError; PyTorch has several ways to say so."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not (known or "allocate memory" in str(error)):
            raise
        raise CapacityError(
            "there is not enough memory",
            hint="fewer beams, a smaller --memory or another --model need less",
        ) from error


@_capacity()
def load(
    name: str = "vicuna-7b",
    *,
    device: str = "auto",
    dtype: str = "auto",
    quantize: str | None = None,
    offline: bool = False,
    on_note: Callable[[str], None] | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Model:
    """A model by short name, Hub repository or folder, ready on a device; downloaded if need be.

    `on_note` and `on_progress` are told of a download: a line; a file, its bytes here and its size.
    Raises UsageError for a name, device or dtype that is not there, ModelError for broken files,
    CapacityError for too little disk or memory.
    """
    name = str(name)
    where = pick_device(device)
    known = hub.describe(name)["parameters"]
    number = pick_dtype(dtype, where, parameters=known, free=free_memory(where))
    dtype = str(number).removeprefix("torch.")
    language_options(where, number, quantize=quantize)  # refuses what is wrong before a download

    def spread(parameters: int) -> bool:
        return _spread(name, parameters, where, dtype, quantize)

    located = hub.locate(
        name,
        offline=offline,
        on_note=on_note,
        on_progress=on_progress,
        check_memory=spread,
    )
    net = models.load(
        located.folder,
        device=where,
        dtype=number,
        quantize=quantize,
        spread=spread(hub.describe(name)["parameters"]),
    )
    return Model(
        net=net,
        name=located.name,
        revision=located.revision,
        device=str(where),
        dtype=dtype,
        note=located.note,
    )


def _spread(
    name: str, parameters: int, device: torch.device, dtype: str, quantize: str | None
) -> bool:
    """Whether the language model must be spread over all devices, for want of room on one.

    Raises CapacityError, which says how much is missing and what would fit, where that is no way.
    """
    try:
        hub.check_memory(name, parameters, dtype, free_memory(device), quantize)
    except CapacityError:
        if device.type != "cuda" or find_spec("accelerate") is None:
            raise
        gpus = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
        everything = sum(map(free_memory, [*gpus, torch.device("cpu")]))
        hub.check_memory(name, parameters, dtype, everything, quantize)
        return True
    return False


def free_memory(device: torch.device) -> int:
    """Bytes of memory that are free for a model on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return hub.machine_memory()


def caption(
    video: str | Path,
    *,
    model: Model,
    settings: Settings = CAPTION,
    on_progress: Progress | None = None,
    **changes: Any,
) -> Result:
    """One text about a video; `changes` are fields of `Settings` or of `Decoding`."""
    settings = changed(settings, **changes)
    prompts = [settings.prompt]
    return _results(video, prompts, [None], model, settings, on_progress)[0]


def ask(
    video: str | Path,
    questions: Sequence[str],
    *,
    model: Model,
    settings: Settings = ASK,
    on_progress: Progress | None = None,
    **changes: Any,
) -> list[Result]:
    """Answers to questions about a video, which is decoded and encoded once for all of them."""
    questions = [questions] if isinstance(questions, str) else list(questions)
    settings = changed(settings, **changes)
    prompts = prompts_for(questions, settings)
    return _results(video, prompts, list(questions), model, settings, on_progress)


def watch(
    video: str | Path,
    prompts: Sequence[str],
    model: Model,
    settings: Settings,
    on_progress: Progress | None = None,
) -> Iterator[Watched]:
    """Decode, encode and remember a video chunk by chunk; yields what was seen after each.

    Memory does not grow with the length of the video or the number of frames, save for the tokens
    of every frame when there is no memory (length 0). The same object is yielded each time.
    """
    net = model.net
    clock = _Clock(net.device)
    with clock("open"):
        info = media.probe(video, settings.decoder)
        times = choose_for(info, settings)
    seen = Watched(info, seconds=clock.seconds, warnings=list(info.warnings))
    if settings.memory == 0 and settings.policy in ("mbc", "fifo"):
        visual = len(times) * net.num_queries
        check_context(net, visual, prompts, settings.decoding.max_new_tokens)
    memory = net.start(
        prompts,
        length=min(settings.memory, len(times)),  # slots that cannot fill up need no room
        policy=settings.policy,
        banks=settings.banks,
        total=len(times),
    )
    size = (net.image_size, net.image_size)
    frames = media.read(info, times.tolist(), size, seen.warnings.append)
    while True:
        with clock("decode"):
            chunk = list(islice(frames, CHUNK))
        if not chunk:
            break
        with clock("encode"):
            features = net.encode(_stack(chunk))
        with clock("remember"):
            seen.tokens, memory = net.remember(features[None], memory)
        seen.first = seen.first if seen.frames else chunk[0].seconds
        seen.last = chunk[-1].seconds
        seen.frames += len(chunk)
        if on_progress:
            on_progress(seen.frames, len(times))
        yield seen


@_capacity()
def _results(
    video: str | Path,
    prompts: list[str],
    questions: Sequence[str | None],
    model: Model,
    settings: Settings,
    on_progress: Progress | None,
) -> list[Result]:
    seen = None
    for seen in watch(video, prompts, model, settings, on_progress):  # noqa: B007
        pass
    if seen is None or seen.tokens is None:
        raise MediaError(f"{video}: no picture could be decoded", kind="NoPicture")
    if not seen.tokens.isfinite().all():
        raise ModelError(
            f"{model.name} gave numbers that are none (NaN or infinite) in {model.dtype}",
            hint="try --dtype float32 or bfloat16; if it stays so, the weights are broken",
        )
    with _Clock(model.net.device, seen.seconds)("generate"):
        found = generate(model.net, seen.tokens, prompts, settings.decoding)
    return [
        _result(str(video), prompt, question, candidates, model, settings, seen)
        for prompt, question, candidates in zip(prompts, questions, found, strict=True)
    ]


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
    end = duration if settings.end is None else min(settings.end, duration)
    return Result(
        video=video,
        task="caption" if question is None else "ask",
        prompt=prompt,
        question=question,
        text=candidates[0],
        candidates=tuple(candidates),
        segments=(Segment(settings.start or 0.0, end, candidates[0]),),
        model=model.name,
        revision=model.revision,
        device=model.device,
        dtype=model.dtype,
        memory=settings.memory,
        policy=settings.policy,
        banks=settings.banks,
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


def _stack(frames: list[Frame]) -> Tensor:
    return torch.from_numpy(np.stack([frame.pixels for frame in frames]))


class _Clock:
    """Adds up the seconds of named stages; waits for the device, so that each pays for its own."""

    def __init__(self, device: torch.device, seconds: dict[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = {} if seconds is None else seconds
        self._device = device

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
