"""A model's name → a report that can be sent in: both paths' prompts, logits and answers."""

from __future__ import annotations

import gc
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from malmm_cli import __version__, hub
from malmm_cli.bench.child import machine, peak_device_mib, peak_mib
from malmm_cli.check import clip, verdict
from malmm_cli.check.families import check_family
from malmm_cli.checkpoints.layout import read_config
from malmm_cli.events import SILENT, Events
from malmm_cli.models import registry
from malmm_cli.models.device import Clock
from malmm_cli.pipeline import loading
from malmm_cli.pipeline.loading import capacity, must_spread
from malmm_cli.types import SCHEMA

__all__ = ["run"]

_NEW = 16  # tokens of an answer, at most

Report = dict[str, Any]


@capacity(without=("memory", "frames", "beams", "max_new_tokens", "quantize", "model"))
def run(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    offline: bool = False,
    events: Events = SILENT,
) -> Report:
    """Compare a model with transformers' own path, and ask it about the drawn clip.

    The "auto" dtype is float32: rounding hides differences. malmm's form of the model is given
    back before transformers loads its own, so that memory holds one at a time. The report is what
    `malmm models check --json` prints; `agree` says whether both paths agree.
    Raises UsageError for a name, a device or a family that cannot be checked, ModelError and
    CapacityError as `loading.load` does.
    """
    dtype = "float32" if dtype == "auto" else dtype
    seconds: dict[str, float] = {}
    clock = Clock(torch.device("cpu"), seconds)
    about, ours = _ours(name, device, dtype, offline, events, clock)
    gc.collect()  # before the model is loaded again
    place = torch.device(about["device"])
    family = registry.module(registry.FAMILIES[about["architecture"]], "check")
    asked = about.pop("asked")
    with events.stage(name, ""), events.stage("transformers' own path", ""), clock("transformers"):
        number: torch.dtype = getattr(torch, dtype)
        theirs = family.theirs(about.pop("folder"), asked, place, number, _NEW)
    prompts = verdict.prompts(ours, theirs, asked.texts.tokenizer.decode)
    logits = verdict.logits(ours, theirs, dtype)
    questions = verdict.answers(clip.QUESTIONS, ours, theirs, dtype)
    pixels = verdict.pixels(asked.pixels) if asked.processor else None
    # logits agree only where prompts do
    agree = logits["agree"] and all(one["agree"] for one in questions)
    return {
        **about,
        "processor": asked.processor,
        "no_processor": asked.without,
        "form": asked.form or None,
        "prompts": prompts,
        "pixels": pixels,
        "logits": logits,
        "questions": questions,
        "agree": agree and (pixels is None or pixels["agree"]),
        "seconds": {stage: round(spent, 3) for stage, spent in seconds.items()},
        "peak_mib": peak_mib(),
        "peak_device_mib": peak_device_mib(place),
    }


def _ours(
    name: str, device: str, dtype: str, offline: bool, events: Events, clock: Clock
) -> tuple[Report, Any]:
    """What was run, with what transformers is to be asked, and malmm's readings of it."""

    def check_memory(parameters: int) -> None:
        must_spread(name, parameters, device=device, dtype=dtype, quantize=None)

    with events.stage(name, ""):
        with events.stage("download", "bytes"), clock("download"):
            hub.locate(name, offline=offline, check_memory=check_memory, events=events)
        check_family(name)
        with events.stage("loading", ""), clock("load"):
            model = loading.load(name, device=device, dtype=dtype, offline=True, events=events)
        family = registry.part(model.folder, "check")
        frames = torch.from_numpy(clip.frames(*model.net.frame_size(*clip.SIZE)))
        shown = torch.arange(len(frames), dtype=torch.float64)
        texts = [question.text for question in clip.QUESTIONS]
        with events.stage("malmm's path", ""), clock("malmm"):
            asked = family.asked(model.net, model.folder, frames, shown, texts)
            readings = family.ours(model.net, asked, _NEW)
    _, height, width, _ = frames.shape
    report = {
        "schema": SCHEMA,
        "model": model.name,
        "repository": hub.describe(name, files=False)["repository"],
        "revision": model.revision,
        "architecture": read_config(model.folder)["model_type"],
        **_environment(),
        "device": model.device,
        "dtype": model.dtype,
        "frames": {"number": len(frames), "width": width, "height": height},
        "folder": model.folder,
        "asked": asked,
    }
    return report, readings


def _environment() -> Report:
    """The versions of what computes, and the machine."""
    found = machine()
    versions: dict[str, str | None] = {"malmm": __version__}
    versions |= {name: found.pop(name) for name in ("transformers", "torch", "python")}
    try:
        versions["torchvision"] = version("torchvision")
    except PackageNotFoundError:
        versions["torchvision"] = None
    return {"versions": versions, "machine": found}
