"""Task files → a trained model folder: checks, features, training, export.

A folder that was trained here is a model folder like any other, with one more folder in it:

    training/features/            what the frozen encoder made of the videos
    training/step-00000500/       the newest checkpoint
    training/best.safetensors     the best parameters so far, where there is a validation
    training/trained.safetensors  what was learnt, float32; `malmm convert` lays it over a base
    training/log.jsonl            one line a step
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

import torch

from malmm_cli.checkpoints.state import read_state
from malmm_cli.datasets.tasks import read_tasks
from malmm_cli.errors import UsageError
from malmm_cli.events import SILENT, Events
from malmm_cli.models.base import Trainable
from malmm_cli.models.device import pick_device, pick_dtype
from malmm_cli.models.placement import check_lora
from malmm_cli.pipeline import loading
from malmm_cli.pipeline.defaults import defaults_of
from malmm_cli.pipeline.model import Model
from malmm_cli.settings import Changes, Defaults, Settings, changed, check_paths
from malmm_cli.train import checks
from malmm_cli.train.export import export
from malmm_cli.train.features import Chosen, Clip, ClipFeatures
from malmm_cli.train.loop import fit, longest_answer
from malmm_cli.train.recipe import Recipe
from malmm_cli.train.samples import Sample, Samples
from malmm_cli.train.workers import Workers, joined

__all__ = ["Training", "run"]

# What helps where memory runs out in a step of training.
_LESS = {
    "batch_size": "a smaller --batch-size",
    "memory": "a smaller --memory",
    "model": "a smaller --model",
}


@dataclass(frozen=True)
class Training:
    """What to learn from, where to write, and how; `run` does it.

    `data` and `validation` are task files (`malmm_cli.datasets.tasks`). `settings`, by default the
    model's for questions, choose frames and memory; `changes` are changes to them. Features are
    kept in `cache` (None: in the folder), unless `keep_features` is off.
    """

    data: Path
    folder: Path
    model: str = "vicuna-7b"
    validation: Path | None = None
    recipe: Recipe = field(default_factory=Recipe)
    settings: Settings | None = None
    changes: Changes = field(default_factory=Changes)
    device: str = "auto"
    dtype: str = "auto"
    quantize: str | None = None
    offline: bool = False
    cache: Path | None = None
    keep_features: bool = True
    save_every: int = 500

    def run(self, events: Events = SILENT) -> None:
        """Check everything, train, and leave the whole model in the folder.

        A run that was interrupted goes on; see `fit` for that and for what is raised besides
        UsageError, MediaError and CapacityError for wrong data, unusable videos and full disks, and
        ToldElsewhereError in a process beside one that raises any of these.
        """
        with joined(self.device) as workers:
            # one process reports for all, but each reports damaged videos that it has encoded
            self._run(workers, events if workers.first else SILENT, own=events)

    @loading.capacity(remedies=_LESS)
    def _run(self, workers: Workers, events: Events, own: Events) -> None:
        self._check(workers)
        plan = self._plan(defaults_of(self.model), workers, events)
        model = self._load(workers, events)
        if model.defaults != plan.defaults:  # unknown before the download
            plan = self._plan(model.defaults, workers, events)
        net = _trainable(model)
        self._prepare(net, model.folder)
        checks.check_lengths(net, plan.samples, plan.chosen, plan.settings)
        new = longest_answer(net, plan.held_out)
        checks.check_lengths(net, plan.held_out, plan.chosen, plan.settings, new=new)
        store = (self.cache or self._training / "features") if self.keep_features else None
        seeing = replace(model, net=net.encoder())
        features = ClipFeatures(seeing, plan.settings, plan.chosen, store, own)
        missing = [clip for clip in plan.chosen if not features.has(clip)] if store else []
        self._check_room(model, store, sum(map(features.size, missing)))
        with self._held(workers):
            self._encode(features, missing, workers, events)
            learnt = self._learn(model, plan, features, workers, events)
            if workers.first:
                export(net, learnt, model.folder, self.folder)
                events.note(
                    f"{self.folder} is a model: malmm ask VIDEO QUESTION --model {self.folder}"
                )

    @property
    def _training(self) -> Path:
        return self.folder / "training"

    def _check(self, workers: Workers) -> None:
        self.recipe.check()
        check_lora(self.recipe.lora)
        if self.save_every < 1:
            raise UsageError(f"--save-every {self.save_every}: must be at least 1")
        if self.cache and not self.keep_features:
            raise UsageError(
                "--cache and --no-cache exclude each other", hint="use only one of them"
            )
        if workers.first:
            checks.check_folder(self.folder, self._training)

    @contextmanager
    def _held(self, workers: Workers) -> Iterator[None]:
        """The folder, which the first process makes and holds for all."""
        with ExitStack() as stack:
            if workers.first:
                self._training.mkdir(parents=True, exist_ok=True)
                stack.enter_context(checks.held(self._training))
            workers.wait()  # each has seen what is missing before one begins to write it
            yield

    def _check_dtype(self, workers: Workers) -> None:
        where = pick_device(workers.device)
        if pick_dtype(self.dtype, where) == torch.float16 and where.type != "cuda":
            raise UsageError(
                f"training in float16 is not supported on {where.type}",
                hint="use --dtype float32 or bfloat16",
            )

    def _plan(self, defaults: Defaults, workers: Workers, events: Events) -> _Plan:
        """What a model with these defaults is to learn from."""
        settings = changed(self.settings or defaults.tasks["ask"], **self.changes)
        samples, held_out = _samples(self.data, defaults), _samples(self.validation, defaults)
        self._check_dtype(workers)
        defaults.check_training({**self.recipe.own, "quantize": self.quantize})
        if "position_gradient" in defaults.training:
            checks.check_gradient(settings, self.recipe.settled().position_gradient)
        clips: dict[Clip, str] = {}
        for sample in (*samples, *held_out):
            clips.setdefault(_clip(sample), sample.id)
        with events.stage("checking", "videos"):
            chosen = checks.choose_frames(clips, settings, events)
        return _Plan(defaults, defaults.checked(settings), samples, held_out, chosen)

    def _load(self, workers: Workers, events: Events) -> Model:
        """The model on this process's device."""
        model = loading.load(
            self.model,
            device=workers.device,
            dtype=self.dtype,
            quantize=self.quantize,
            offline=self.offline,
            events=events,
        )
        events.note(f"{model.name} on {model.device}, {model.dtype}")
        return model

    def _check_room(self, model: Model, store: Path | None, features: int) -> None:
        """Raise CapacityError if the disk has no room for a whole run, with bytes of features."""
        learnt = 4 * sum(int(value.numel()) for value in _trainable(model).trainable().values())
        whole = sum(file.stat().st_size for file in model.folder.glob("model*.safetensors"))
        # two checkpoints of three numbers each, the best, the last, and the whole model
        present = sum(file.stat().st_size for file in self._written())
        written = [(self._training, max(8 * learnt + whole - present, 0))]
        checks.check_room([*written, (store, features)] if store else written)

    def _encode(
        self, features: ClipFeatures, missing: list[Clip], workers: Workers, events: Events
    ) -> None:
        """Put the features that are missing on disk, each process its share of them."""
        own = missing[workers.rank :: workers.count]
        with events.stage("encoding", "videos"):
            for done, clip in enumerate(own, start=1):
                features(clip)
                events.progress("encoding", done, len(own), "videos")
        workers.wait()

    def _learn(
        self,
        model: Model,
        plan: _Plan,
        features: ClipFeatures,
        workers: Workers,
        events: Events,
    ) -> Path:
        """The file of what was learnt."""
        options = {"process": workers.rank, "processes": workers.count}
        source = Samples(plan.samples, features, self.recipe, **options)
        held_out = Samples(plan.held_out, features, self.recipe, **options)
        with events.stage("training", "steps"):
            return fit(
                _trainable(model),
                source,
                self.recipe,
                plan.settings,
                self._training,
                steps=self.recipe.steps or self.recipe.epochs * source.steps_per_epoch,
                validation=held_out if plan.held_out else None,
                save_every=self.save_every,
                provenance=self._provenance(model, plan.settings, workers),
                dtype=getattr(torch, model.dtype),
                workers=workers,
                events=events,
            )

    def _written(self) -> Iterator[Path]:
        """Leftovers of an interrupted run, which will be replaced."""
        yield from self._training.glob("*.safetensors")
        yield from self._training.glob("step-*/*")
        yield from self.folder.glob("model*.safetensors")

    def _prepare(self, net: Trainable[Any], base: Path) -> None:
        """Add the parts that net lacks, and give what will learn its exact values."""
        recipe = self.recipe.settled()
        assert recipe.positions is not None
        net.prepare(positions=recipe.positions, lora=recipe.lora, seed=recipe.seed)
        stored = read_state(base)
        for name, parameter in net.trainable().items():
            if name in stored:
                parameter.data = stored[name].to(net.device, torch.float32)

    def _provenance(self, model: Model, settings: Settings, workers: Workers) -> dict[str, Any]:
        """What must be the same to resume a run, besides recipe and memory."""
        files = {"data": self.data, "validation": self.validation}
        return {
            "model": model.name,
            "weights": model.fingerprints.weights,
            "dtype": model.dtype,
            "quantize": self.quantize,
            "processes": workers.count,
            **{name: path and _digest(path) for name, path in files.items()},
            **asdict(settings.sampling),
        }


@dataclass(frozen=True)
class _Plan:
    """Tasks and the frames to look at of their videos, by the defaults of a model's family."""

    defaults: Defaults
    settings: Settings
    samples: list[Sample]
    held_out: list[Sample]
    chosen: dict[Clip, Chosen]


def run(
    data: str | Path,
    folder: str | Path,
    *,
    model: str = "vicuna-7b",
    validation: str | Path | None = None,
    recipe: Recipe | None = None,
    settings: Settings | None = None,
    device: str = "auto",
    dtype: str = "auto",
    quantize: str | None = None,
    offline: bool = False,
    cache: str | Path | None = None,
    keep_features: bool = True,
    save_every: int = 500,
    events: Events = SILENT,
    **changes: Unpack[Changes],
) -> Path:
    """Train a model on the tasks of `data`, as `malmm train` does, and return its folder.

    Arguments are those of `Training`; `changes` are changes to `settings`. Raises what
    `Training.run` raises.
    """
    check_paths(data=data, folder=folder)
    check_paths(optional=True, validation=validation, cache=cache)
    Training(
        data=Path(data),
        folder=Path(folder),
        model=model,
        validation=None if validation is None else Path(validation),
        recipe=recipe or Recipe(),
        settings=settings,
        changes=changes,
        device=device,
        dtype=dtype,
        quantize=quantize,
        offline=offline,
        cache=None if cache is None else Path(cache),
        keep_features=keep_features,
        save_every=save_every,
    ).run(events)
    return Path(folder)


def _trainable(model: Model) -> Trainable[Any]:
    """The model, if its family can be trained."""
    if not isinstance(model.net, Trainable):
        raise UsageError(f"{model.name}: models of {model.net.spec.family} cannot be trained")
    return model.net


def _samples(path: Path | None, defaults: Defaults) -> list[Sample]:
    return [checks.as_sample(task, defaults) for task in read_tasks(path)] if path else []


def _clip(sample: Sample) -> Clip:
    assert isinstance(sample.clip, Clip)
    return sample.clip


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
