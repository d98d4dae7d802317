"""When a language model begins to read, when its first token is known, and how long it reads."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import torch

from malmm_cli.bench.child import wait

__all__ = ["Marks"]


class Marks:
    """Watches the calls of a language model while it is open.

    `part` of it is called first and `head` makes scores of words. `began` is when part was first
    called and `first` when head was first done, both in seconds of `time.perf_counter`, None before
    that; `read` adds up the seconds of calls that take more than one token: prompts, not answers.
    """

    def __init__(self, part: Any, head: Any, device: torch.device) -> None:
        self.began: float | None = None
        self.first: float | None = None
        self.read = 0.0
        self._part, self._head, self._device = part, head, device
        self._called = 0.0
        self._hooks: list[Any] = []

    def __enter__(self) -> Marks:
        """Begin to watch."""
        self._hooks = [
            self._part.register_forward_pre_hook(self._before),
            self._part.register_forward_hook(self._after, with_kwargs=True),
            self._head.register_forward_hook(self._scored),
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Watch no longer."""
        for hook in self._hooks:
            hook.remove()

    def _now(self) -> float:
        wait(self._device)
        return time.perf_counter()

    def _before(self, *_: Any) -> None:
        self._called = self._now()
        self.began = self._called if self.began is None else self.began

    def _after(self, part: Any, given: tuple[Any, ...], named: dict[str, Any], _: Any) -> None:
        tokens = (named.get(name) for name in ("inputs_embeds", "input_ids"))
        taken = next(x for x in (*tokens, *given) if x is not None)
        if taken.shape[1] > 1:
            self.read += self._now() - self._called

    def _scored(self, *_: Any) -> None:
        if self.first is None:
            self.first = self._now()
