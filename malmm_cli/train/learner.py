"""One training step, and its loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from malmm_cli.checkpoints.state import fill
from malmm_cli.datasets.metrics import is_right
from malmm_cli.errors import ModelError
from malmm_cli.models.base import Context, Trainable
from malmm_cli.settings import Decoding, Settings
from malmm_cli.train.recipe import BETAS, Recipe
from malmm_cli.train.samples import Batch
from malmm_cli.train.workers import Workers

__all__ = ["Learner", "Learnt", "Validated"]

# Samples of a batch that an error names.
SHOWN = 8


@dataclass(frozen=True)
class Learnt:
    """The result of a step: the mean loss and number of its samples, in all processes."""

    loss: float
    rate: float
    samples: int


@dataclass(frozen=True)
class Validated:
    """Mean loss over samples, and the share of them that greedy search answers exactly."""

    loss: float
    exact: float


class Learner:
    """A model whose `trainable` parameters learn.

    Everything else stays as it is, frozen and in eval mode. What learns is float32, and computes in
    `dtype` where that is another. `steps` are those of the whole run.
    """

    def __init__(
        self,
        net: Trainable[Any],
        recipe: Recipe,
        settings: Settings,
        *,
        steps: int,
        dtype: torch.dtype = torch.float32,
        workers: Workers | None = None,
    ) -> None:
        self.net = net
        self.parameters = net.trainable()
        self.steps = steps
        self._recipe = recipe.settled()
        self._settings = settings
        self._dtype = dtype
        self._workers = workers or Workers()
        net.requires_grad_(False)
        net.eval()
        for parameter in self.parameters.values():
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
        vectors = [p for p in self.parameters.values() if p.dim() < 2]  # biases and norms
        matrices = [p for p in self.parameters.values() if p.dim() >= 2]
        groups = [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=BETAS)
        # float16 alone is so narrow that gradients must be scaled into it
        self.scaler = torch.amp.GradScaler(net.device.type, enabled=dtype == torch.float16)

    def step(self, number: int, batches: Iterable[Batch]) -> Learnt:
        """Learn from the batches of a step, counted from 0.

        Raises ModelError, before anything was learnt, where a loss or gradient is NaN or infinite.
        """
        random = Random(f"{self._recipe.seed} {number} {self._workers.rank}")
        torch.manual_seed(random.getrandbits(63))
        self.net.train_reader(True)
        lost, count, ids = 0.0, 0, list[str]()
        for batch in self._pieces(batches):
            loss = self.loss(batch)
            if not loss.isfinite():
                raise self._fault(number, batch)
            torch.autograd.backward(self.scaler.scale(loss * len(batch.samples)))
            lost += loss.item() * len(batch.samples)
            count += len(batch.samples)
            ids += batch.ids
        self.net.train_reader(False)
        lost, samples = self._workers.total(lost, count)
        rate = self._recipe.rate(number, self.steps)
        self._learn(
            rate, samples, f"step {number + 1}: the gradient is NaN or infinite; {_named(ids)}"
        )
        return Learnt(lost / samples, rate, int(samples))

    def loss(self, batch: Batch) -> Tensor:
        """The loss () of a batch, with gradient."""
        mixed = self._dtype != torch.float32
        with torch.autocast(self.net.device.type, dtype=self._dtype, enabled=mixed):
            return self.net.loss(self._context(batch), batch.prompts, batch.answers)

    def take(self, state: dict[str, Tensor], where: str) -> None:
        """Put what was learnt elsewhere into the model; ModelError where it does not fit."""
        fill(self.parameters, state, where)

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch], decoding: Decoding) -> Validated:
        """How well samples are answered: by loss, and by what is generated."""
        lost = right = count = 0.0
        for batch in self._pieces(batches):
            context = self._context(batch)
            loss = self.net.loss(context, batch.prompts, batch.answers)
            found = self.net.generate(context, batch.prompts, decoding)
            lost += loss.item() * len(batch.samples)
            count += len(batch.samples)
            right += sum(
                is_right(texts[0], sample.answers)
                for texts, sample in zip(found, batch.samples, strict=True)
            )
        lost, right, count = self._workers.total(lost, right, count)
        return Validated(lost / count, right / count)

    def _pieces(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, in parts that the model can be trained on at once."""
        for batch in batches:
            yield from (batch,) if self.net.stacks_videos else batch.by_video()

    def _context(self, batch: Batch) -> Context:
        videos = [video.to(self.net.device, torch.float32) for video in batch.videos]
        options = self._settings.memory.within(len(videos[0].rows))
        gradient = self._recipe.position_gradient
        assert gradient is not None
        return self.net.training_context(videos, batch.prompts, options, position_gradient=gradient)

    def _learn(self, rate: float, samples: float, fault: str) -> None:
        """Step along the mean gradient of `samples`; ModelError if it is NaN or infinite."""
        learning = list(self.parameters.values())
        if self._workers.count > 1:
            for parameter in learning:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            self._workers.add_up(p.grad for p in learning if p.grad is not None)
        self.scaler.unscale_(self.optimizer)
        for parameter in learning:
            if parameter.grad is not None:
                parameter.grad /= samples
        norm = torch.nn.utils.clip_grad_norm_(learning, self._recipe.clip or math.inf)
        if not norm.isfinite() and not self.scaler.is_enabled():  # a scaler leaves the step out
            raise ModelError(fault, hint=_HINT, kind="NotANumber")
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def _fault(self, number: int, batch: Batch) -> ModelError:
        """The error that names the samples of a batch, and those at fault when learnt alone."""
        alone = [each.ids[0] for each in batch.apart() if not self.loss(each).isfinite()]
        cause = f"caused by {_named(alone)}" if alone else "no single sample causes it"
        where = f"in the batch of {_named(batch.ids)}; {cause}"
        return ModelError(
            f"step {number + 1}: the loss is NaN or infinite {where}",
            hint=_HINT,
            kind="NotANumber",
        )


_HINT = (
    "check the sample, or try a lower --lr, --clip 1 or --dtype float32; "
    "the last checkpoint is kept"
)


def _named(ids: list[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(ids[:SHOWN]) + more
