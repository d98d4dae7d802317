"""Training samples in batches, in an order that follows from seed and step.

Letters: V videos, B prompts (B / V of each video, side by side).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol

from malmm_cli.models.base import Features
from malmm_cli.train.recipe import Recipe

__all__ = ["Batch", "Sample", "Samples", "Source", "batches"]


@dataclass(frozen=True)
class Sample:
    """One prompt about a `clip`, whose name its features are asked by, and its right answers."""

    id: str
    clip: Hashable
    prompt: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Batch:
    """The features of V videos, of one shape, and B samples: B / V of each, side by side.

    Of several answers to a sample the first is learnt.
    """

    videos: tuple[Features, ...]
    samples: tuple[Sample, ...]

    @property
    def ids(self) -> list[str]:
        """The name of each sample."""
        return [sample.id for sample in self.samples]

    @property
    def prompts(self) -> list[str]:
        """The prompt of each sample."""
        return [sample.prompt for sample in self.samples]

    @property
    def answers(self) -> list[str]:
        """The answer of each sample that is to be learnt."""
        return [sample.answers[0] for sample in self.samples]

    def by_video(self) -> Iterator[Batch]:
        """Each video with its samples as a batch of its own."""
        each = len(self.samples) // len(self.videos)
        for index, video in enumerate(self.videos):
            yield Batch((video,), self.samples[index * each : (index + 1) * each])

    def apart(self) -> Iterator[Batch]:
        """Each sample as a batch of its own."""
        for one in self.by_video():
            for sample in one.samples:
                yield Batch(one.videos, (sample,))


class Source(Protocol):
    """Where a step's batches come from; asked twice for the same step, it gives the same."""

    def draw(self, step: int) -> Iterable[Batch]:
        """The batches of a step, counted from 0; their gradients are averaged over samples."""


class Samples:
    """A source of samples, each seen once in an epoch.

    `features` gives those of a clip. Of `processes` that learn side by side, the one
    with number `process` draws its own part of each step.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        features: Callable[[Hashable], Features],
        recipe: Recipe,
        *,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.samples = samples
        self._features = features
        self._recipe = recipe
        self._process, self._processes = process, processes
        self._epoch: tuple[int, list[Sample]] = (-1, [])

    @property
    def steps_per_epoch(self) -> int:
        """Steps until every sample was drawn once; the last may be short of samples."""
        return -(-len(self.samples) // self._per_step)

    def draw(self, step: int) -> Iterator[Batch]:
        """The batches of a step: videos with equally many frames and prompts go together."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._order(epoch))
        drawn = _part(self._epoch[1], index, self._per_step)
        yield from self._batches(_part(drawn, self._process, self._share(drawn)))

    def all(self) -> Iterator[Batch]:
        """What this process has of the samples, in their own order."""
        yield from self._batches(_part(self.samples, self._process, self._share(self.samples)))

    def _share(self, samples: Sequence[Sample]) -> int:
        return -(-len(samples) // self._processes)

    def _batches(self, samples: Sequence[Sample]) -> Iterator[Batch]:
        size = self._recipe.batch_size
        for number in range(-(-len(samples) // size)):
            yield from batches(_part(samples, number, size), self._features)

    @property
    def _per_step(self) -> int:
        return self._recipe.batch_size * self._recipe.accumulate * self._processes

    def _order(self, epoch: int) -> list[Sample]:
        """All samples, shuffled, each with one of its answers."""
        random, together = Random(f"{self._recipe.seed} {epoch}"), self._recipe.together
        by_clip: dict[Hashable, list[Sample]] = defaultdict(list)
        for sample in self.samples:
            by_clip[sample.clip].append(replace(sample, answers=(random.choice(sample.answers),)))
        groups = []
        for own in by_clip.values():
            random.shuffle(own)
            groups += [_part(own, i, together) for i in range(-(-len(own) // together))]
        random.shuffle(groups)
        return [sample for group in groups for sample in group]


def batches(samples: Iterable[Sample], features: Callable[[Hashable], Features]) -> Iterator[Batch]:
    """Batches of samples whose videos have equally many frames, and prompts, each."""
    by_clip: dict[Hashable, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_clip[sample.clip].append(sample)
    alike: dict[Hashable, list[tuple[Features, list[Sample]]]] = defaultdict(list)
    for clip, own in by_clip.items():
        seen = features(clip)
        alike[seen.rows.shape, len(own)].append((seen, own))
    for found in alike.values():
        together = tuple(sample for _, own in found for sample in own)
        yield Batch(tuple(seen for seen, _ in found), together)


def _part(samples: Sequence[Sample], number: int, size: int) -> Sequence[Sample]:
    return samples[number * size : (number + 1) * size]
