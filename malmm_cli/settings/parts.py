"""The three parts of settings: which frames, how they are remembered, how texts are searched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from malmm_cli.errors import UsageError
from malmm_cli.settings.arguments import strict
from malmm_cli.text.clock import seconds_text
from malmm_cli.text.words import known_names

__all__ = [
    "BANKS",
    "BANK_POLICIES",
    "DECODERS",
    "FILLS",
    "MEANS",
    "MERGES",
    "POLICIES",
    "Decoding",
    "MemoryOptions",
    "Sampling",
    "check_known",
]

DECODERS = ("auto", "pyav", "nvdec", "ffmpeg", "decord")
# those that keep slots of earlier frames
BANK_POLICIES = ("mbc", "fifo", "random", "uniform", "ward")
POLICIES = ("mbc", "fifo", "average", "last", "random", "uniform", "ward")
MERGES = ("token", "frame")
MEANS = ("weighted", "plain")
FILLS = ("mean", "keep")
BANKS = ("both", "visual", "query", "none")


@strict
@dataclass(frozen=True)
class Decoding:
    """How the language model is searched; the reference's values for captions.

    `sample` draws instead of taking the likeliest, at `temperature` and from the smallest set of
    tokens that holds `top_p` of the probability; `seed` makes that repeatable.
    """

    max_new_tokens: int = 50
    beams: int = 5
    length_penalty: float = 1.0
    repetition_penalty: float = 1.5
    sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None

    def check(self) -> None:
        """Raise UsageError for values that make no sense."""
        for name, number in (("max-new-tokens", self.max_new_tokens), ("beams", self.beams)):
            if number < 1:
                raise UsageError(f"--{name} {number}: must be at least 1")
        for name, value in (
            ("temperature", self.temperature),
            ("repetition-penalty", self.repetition_penalty),
        ):
            if not 0 < value < math.inf:
                raise UsageError(f"--{name} {value:g}: must be a number above 0")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"--top-p {self.top_p:g}: must be above 0 and at most 1")
        if not abs(self.length_penalty) <= 100:  # it is an exponent
            raise UsageError(
                f"--length-penalty {self.length_penalty:g}: must be between -100 and 100"
            )
        if self.temperature < 1e-3:
            raise UsageError(f"--temperature {self.temperature:g}: must be at least 0.001")
        if self.beams > 1000:
            raise UsageError(f"--beams {self.beams}: must be at most 1000")
        if self.seed is not None:
            _check_seed(self.seed)


@strict
@dataclass(frozen=True)
class Sampling:
    """Which frames to look at.

    `frames` in all, or `fps` a second with at most `max_frames`, between `start` and `end` seconds.
    """

    frames: int | None = 100
    fps: float | None = None
    max_frames: int | None = None
    start: float | None = None
    end: float | None = None
    decoder: str = "auto"

    def check(self) -> None:
        """Raise UsageError for values that make no sense."""
        # `not x > 0` and its like also refuse NaN
        check_known("decoder", self.decoder, DECODERS)
        frames, fps, most = self.frames, self.fps, self.max_frames
        start, end = self.start, self.end
        if frames is not None and fps is not None:
            raise UsageError("--frames and --fps exclude each other", hint="use only one of them")
        if frames is not None and frames < 1:
            raise UsageError(f"--frames {frames}: must be at least 1")
        if fps is not None and not 0 < fps < math.inf:
            raise UsageError(f"--fps {fps:g}: must be a number above 0")
        if most is not None and most < 1:
            raise UsageError(f"--max-frames {most}: must be at least 1")
        if most is not None and frames is not None:
            raise UsageError("--max-frames needs --fps", hint="use --frames instead")
        if start is not None and not start >= 0:
            raise UsageError(f"--from {start:g}: must be 0 or more (the first frame is at 0)")
        if end is not None and not end > (start or 0.0):
            first, last = seconds_text(start or 0.0), seconds_text(end)
            raise UsageError(f"--to {last} must come after --from {first}")


@strict
@dataclass(frozen=True)
class MemoryOptions:
    """How a video is remembered: `length` slots in each bank, 0 for no memory.

    `policy`, `merge`, `mean` and `fill` say what a full bank does, see
    `malmm_cli.memory.rule.Rule`; `seed` is that of the policy "random".
    """

    length: int = 20
    policy: str = "mbc"
    banks: str = "both"
    merge: str = "token"
    mean: str = "weighted"
    seed: int = 0
    fill: str = "mean"

    @property
    def keeps_banks(self) -> bool:
        """Whether slots of earlier frames are kept."""
        return self.length > 0 and self.policy in BANK_POLICIES

    @property
    def keeps_visual(self) -> bool:
        """Whether the visual bank is in use."""
        return self.keeps_banks and self.banks in ("both", "visual")

    @property
    def keeps_queries(self) -> bool:
        """Whether the query banks are in use."""
        return self.keeps_banks and self.banks in ("both", "query")

    @property
    def gives_every_frame(self) -> bool:
        """Whether the language model is given the tokens of every frame."""
        return self.length == 0 and self.policy in BANK_POLICIES

    @property
    def compression(self) -> dict[str, Any]:
        """What a full bank does beside the policy, by `Changes`; without what is usual."""
        usual = {field.name: field.default for field in fields(self)}
        names = [name for name in ("merge", "mean", "fill") if getattr(self, name) != usual[name]]
        seed = {"memory_seed": self.seed} if self.policy == "random" else {}
        return {name: getattr(self, name) for name in names} | seed

    def within(self, frames: int) -> MemoryOptions:
        """Return the same without slots that `frames` frames cannot fill."""
        return replace(self, length=min(self.length, frames))

    def check(self) -> None:
        """Raise UsageError for names that are not known and numbers that make no sense."""
        check_known("policy", self.policy, POLICIES)
        check_known("merge", self.merge, MERGES)
        check_known("mean", self.mean, MEANS)
        check_known("fill", self.fill, FILLS)
        check_known("banks", self.banks, BANKS)
        if self.length < 0:
            raise UsageError(f"--memory {self.length}: must be at least 0")
        _check_seed(self.seed)


def check_known(name: str, value: str, known: Sequence[str]) -> None:
    """Raise UsageError for a value that is not one of those known."""
    if value not in known:
        raise UsageError(f"unknown {name} {value!r}", hint=known_names(value, known))


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**64:
        raise UsageError(f"--seed {seed}: must be between 0 and {2**64 - 1}")
