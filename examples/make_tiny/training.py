"""The steps of a stage: how they learn, what they say of themselves, and going on after a stop."""

import math
import random
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

KEPT_EVERY = 50  # steps


class Muon(torch.optim.Optimizer):
    """Steps along the momentum of a matrix, with all its singular values made about equal.

    As torch.optim.Muon with Nesterov momentum, weight decay and `match_rms_adamw`, but in float32:
    torch's own works in bfloat16, which is 50 times slower on CPUs without instructions for it.
    """

    def __init__(self, matrices: Iterable[Tensor], lr: float, weight_decay: float = 0.01) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Change every matrix that has a gradient."""
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                kept = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                kept.lerp_(matrix.grad, 1 - momentum)
                change = _levelled(matrix.grad.lerp(kept, momentum))
                matrix.mul_(1 - rate * group["weight_decay"])
                matrix.add_(change, alpha=-0.2 * max(matrix.shape) ** 0.5 * rate)


def _levelled(matrix: Tensor) -> Tensor:
    """A matrix with its singular values moved to about 1, by five steps of Newton and Schulz."""
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


class Training:
    """Steps that change parameters: Muon for matrices, AdamW for the rest.

    In a short trial Muon came further in as many steps than AdamW alone. Tables of embeddings and
    the head, whose rows are things of their own, are not matrices to it. A short warm-up, and a
    cosine down to a fiftieth of the rate.

    What a step draws follows from its number alone, and after every KEPT_EVERY all that is learnt
    is written to the file `kept`; a training that finds its file goes on from there.
    """

    def __init__(
        self,
        name: str,
        named: Iterable[tuple[str, Tensor]],
        steps: int,
        rate: float,
        *,
        log=print,
        kept: Path | None = None,
    ) -> None:
        self.name, self.steps, self.rate, self.log, self.kept = name, steps, rate, log, kept
        self.parameters = {key: value for key, value in named if value.requires_grad}
        tables = [
            n for n, p in self.parameters.items() if p.ndim != 2 or "embed" in n or "head" in n
        ]
        matrices = [value for key, value in self.parameters.items() if key not in tables]
        rest = [self.parameters[key] for key in tables]
        self.optimizers = [
            Muon(matrices, rate),
            torch.optim.AdamW(rest, rate, (0.9, 0.98), weight_decay=0.01),
        ]
        self.done, self.begun = 0, time.time()
        self.seen: list[list[float]] = []
        if kept and kept.exists():
            self._go_on(torch.load(kept, weights_only=True))

    def __iter__(self) -> Iterator[tuple[int, random.Random]]:
        """The steps that are left: their numbers, and what each is to draw from."""
        while self.done < self.steps:
            torch.manual_seed(self.done)
            yield self.done, random.Random(f"{self.name} {self.done}")

    def learn(self, loss: Tensor, **shares: float) -> None:
        """Do a step; the shares are logged beside the loss."""
        warm = min(1, (self.done + 1) / 100)
        share = warm * (0.51 + 0.49 * math.cos(math.pi * self.done / self.steps))
        for one in self.optimizers:
            one.zero_grad()
            for group in one.param_groups:
                group["lr"] = self.rate * share
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        for one in self.optimizers:
            one.step()
        self.done += 1
        self.seen.append([loss.item(), *shares.values()])
        if self.done % KEPT_EVERY == 0:
            mean, *means = torch.tensor(self.seen).mean(0).tolist()
            self.seen.clear()
            told = "".join(f", {n} {mean:.1%}" for n, mean in zip(shares, means, strict=True))
            seconds = time.time() - self.begun
            if self.kept:
                keep(self._state(seconds), self.kept)
            self.log(
                f"{self.name} {self.done}/{self.steps}: loss {mean:.3f}{told}, {seconds:.0f} s"
            )

    def _state(self, seconds: float) -> dict:
        return {
            "parameters": self.parameters,
            "optimizers": [one.state_dict() for one in self.optimizers],
            "done": self.done,
            "seconds": seconds,
        }

    @torch.no_grad()
    def _go_on(self, state: dict) -> None:
        for name, value in state["parameters"].items():
            self.parameters[name].copy_(value)
        for one, told in zip(self.optimizers, state["optimizers"], strict=True):
            one.load_state_dict(told)
        self.done, self.begun = state["done"], time.time() - state["seconds"]
        self.log(f"{self.name}: goes on after step {self.done}")


def keep(what, path: Path) -> None:
    """Save to path, whole or not at all."""
    partial = path.with_suffix(".partial")
    torch.save(what, partial)
    partial.replace(path)
