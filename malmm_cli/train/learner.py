"""One training step, and its loss."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from malmm_cli.checkpoints.state import fill
from malmm_cli.datasets.metrics import is_right
from malmm_cli.errors import ModelError
from malmm_cli.models.base import Features, Trainable
from malmm_cli.settings import Decoding, MemoryOptions, Settings
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
    """A model whose `trainable` parameters learn: what is between encoder and language model.

    The encoder and the language model stay as they are, frozen and in eval mode. What learns is
    float32, and computes in `dtype` where that is another. `steps` are those of the whole run.
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
        self._recipe = recipe
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
        for batch in batches:
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
        net = self.net
        rows, options = self._ready(batch)
        mixed = self._dtype != torch.float32
        with torch.autocast(net.device.type, dtype=self._dtype, enabled=mixed):
            tokens = net.tokens_for_training(
                rows, batch.prompts, options, position_gradient=self._recipe.position_gradient
            )
            return net.loss(tokens, batch.prompts, batch.answers)

    def take(self, state: dict[str, Tensor], where: str) -> None:
        """Put what was learnt elsewhere into the model; ModelError where it does not fit."""
        fill(self.parameters, state, where)

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch], decoding: Decoding) -> Validated:
        """How well samples are answered: by loss, and by what is generated."""
        lost = right = count = 0.0
        for batch in batches:
            rows, options = self._ready(batch)
            memory = self.net.start(batch.prompts, options, rows.shape[1])
            self.net.observe(memory, Features(rows, torch.zeros(rows.shape[1], 2)))
            context = self.net.context(memory)
            loss = self.net.loss(context.tokens, batch.prompts, batch.answers)
            found = self.net.generate(context, batch.prompts, decoding)
            lost += loss.item() * len(batch.samples)
            count += len(batch.samples)
            right += sum(
                is_right(texts[0], sample.answers)
                for texts, sample in zip(found, batch.samples, strict=True)
            )
        lost, right, count = self._workers.total(lost, right, count)
        return Validated(lost / count, right / count)

    def _ready(self, batch: Batch) -> tuple[Tensor, MemoryOptions]:
        """Rows (V, T, P, C) where and how the model computes, and the memory for them."""
        options = self._settings.memory.within(batch.features.shape[1])
        return batch.features.to(self.net.device).float(), options

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
