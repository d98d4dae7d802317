"""Scenes → a caption, and questions that cannot be answered without the video."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from malmm_cli.datasets.synthetic.scene import COLOURS, MOTIONS, SHAPES, SPARE_COLOUR, Event, Scene

__all__ = ["NUMBERS", "Asked", "caption", "questions", "words"]

NUMBERS = ("zero", "one", "two", "three", "four")
# Of the questions after what is absent: so often that "nothing" is as rare as every other answer.
ASKED_IN_VAIN = 0.15


@dataclass(frozen=True)
class Asked:
    """A question, its answer, its kind, and from when to when in seconds the answer is seen."""

    question: str
    answer: str
    kind: str
    evidence: tuple[float, float]


def caption(scene: Scene) -> str:
    """Every event in order."""
    return ", ".join(f"{_article(event.colour)} {event}" for event in scene.events)


def questions(
    scene: Scene, count: int, *, colours: Sequence[str] = COLOURS, seed: int = 0
) -> list[Asked]:
    """`count` different questions, the kinds in turn; fewer where a scene has no more to ask."""
    chance = random.Random(f"{scene.seed} {scene.seconds} {seed} {scene.events[0]}")
    by_kind = {kind: ask(scene, chance, colours) for kind, ask in _ways(scene).items()}
    order = list(by_kind)
    chance.shuffle(order)
    found: dict[str, Asked] = {}
    tries = 0
    while len(found) < count and tries < 20 * count:
        kind = order[tries % len(order)]
        tries += 1
        asked = next(by_kind[kind], None)
        if asked is not None:
            found.setdefault(asked.question, asked)
    return list(found.values())


def words() -> list[str]:
    """Every word that a caption, a question or an answer may have."""
    plurals = map(_plural, SHAPES)
    parts = [*COLOURS, SPARE_COLOUR, *SHAPES, *plurals, *MOTIONS, *NUMBERS, *_PHRASES]
    return sorted({word for part in parts for word in re.findall(r"[a-z]+", part)})


# every question of the world, for its words
_PHRASES = (
    "a an the and or yes no nothing",
    "what does the do",
    "what colour is the that",
    "what shape is the thing that",
    "what comes first last",
    "what comes right after the before",
    "how many shapes are there",
    "which comes first the or the",
    "is there",
    "question short answer describe video",
    "what does the do the first second time",
    "how many times does a thing come",
    "do the and the do the same",
    "does the do the same both times",
    "what number is under the",
)


def _question(scene: Scene, event: Event, chance: random.Random) -> tuple[str, str]:
    """A question about one event, and its answer."""
    others = [other for other in scene.events if other is not event]
    ways = [(f"what does the {event.name} do?", event.motion)]
    if all((other.shape, other.motion) != (event.shape, event.motion) for other in others):
        asked = f"what colour is the {event.shape} that {event.motion}?"
        ways.append((asked, event.colour))
    if all((other.colour, other.motion) != (event.colour, event.motion) for other in others):
        asked = f"what shape is the {event.colour} thing that {event.motion}?"
        ways.append((asked, event.shape))
    return chance.choice(ways)


def _within(low: float, high: float, kind: str) -> Callable[..., Iterator[Asked]]:
    """Questions about events that are over, or not begun, by a share of the video."""

    def endless(scene: Scene, chance: random.Random, _: Sequence[str]) -> Iterator[Asked]:
        begin, end = low * scene.seconds, high * scene.seconds
        events = [e for e in scene.once() if begin <= (e.start + e.end) / 2 < end]
        while events:
            event = chance.choice(events)
            yield Asked(*_question(scene, event, chance), kind, (event.start, event.end))

    return endless


def _ordered(scene: Scene, chance: random.Random, _: Sequence[str]) -> Iterator[Asked]:
    events, known = scene.events, scene.once()
    while True:
        index = chance.randrange(-1, len(events))
        if index == -1:
            last = chance.random() < 0.5
            event = events[-1 if last else 0]
            asked = f"what comes {'last' if last else 'first'}?"
            evidence = (event.start, event.end)
        elif events[index] not in known:
            continue
        elif chance.random() < 0.5 and index + 1 < len(events):
            event = events[index + 1]
            asked = f"what comes right after the {events[index].name}?"
            evidence = (events[index].start, event.end)
        elif index > 0:
            event = events[index - 1]
            asked = f"what comes right before the {events[index].name}?"
            evidence = (event.start, events[index].end)
        else:
            continue
        yield Asked(asked, event.name, "ordered", evidence)


def _counted(scene: Scene, chance: random.Random, colours: Sequence[str]) -> Iterator[Asked]:
    """How many of a colour or a shape; rare numbers as often as common ones."""
    ways: dict[int, list[tuple[str, list[Event]]]] = {}
    for asked, seen in _how_many(scene, colours):
        if len(seen) < len(NUMBERS):
            ways.setdefault(len(seen), []).append((asked, seen))
    while ways:
        number = chance.choice(sorted(ways))
        asked, seen = chance.choice(ways[number])
        evidence = (seen[0].start, seen[-1].end) if seen else (0.0, scene.seconds)
        yield Asked(asked, NUMBERS[number], "counted", evidence)


def _how_many(scene: Scene, colours: Sequence[str]) -> Iterator[tuple[str, list[Event]]]:
    """Questions of how many, and the events they are about; where objects come back, how often."""
    again = scene.world == "hard"
    for colour in colours:
        times = f"how many times does {_article(colour)} {colour} thing come?"
        asked = times if again else f"how many shapes are {colour}?"
        yield asked, [event for event in scene.events if event.colour == colour]
    for shape in SHAPES:
        times = f"how many times does {_article(shape)} {shape} come?"
        asked = times if again else f"how many {_plural(shape)} are there?"
        yield asked, [event for event in scene.events if event.shape == shape]


def _compared(scene: Scene, chance: random.Random, _: Sequence[str]) -> Iterator[Asked]:
    events = scene.once()
    while len(events) > 2:
        three = chance.sample(events, 3)
        a, b, c = (event.name for event in three)
        first = min(three, key=lambda event: event.start)
        yield Asked(
            f"which comes first, the {a}, the {b} or the {c}?",
            first.name,
            "compared",
            (first.start, max(event.end for event in three)),
        )


def _returning(scene: Scene, chance: random.Random, _: Sequence[str]) -> Iterator[Asked]:
    """What an object does when it comes first, and when it comes back."""
    pairs = _pairs(scene)
    while pairs:
        first, second = chance.choice(pairs)
        event, time = chance.choice([(first, "first"), (second, "second")])
        asked = f"what does the {first.name} do the {time} time?"
        yield Asked(asked, event.motion, "returning", (event.start, event.end))


def _linked(scene: Scene, chance: random.Random, _: Sequence[str]) -> Iterator[Asked]:
    """Whether two objects, or one at two times, do the same; yes as often as no."""
    both: dict[bool, list[tuple[str, Event, Event]]] = {True: [], False: []}
    for first, second in _pairs(scene):
        asked = f"does the {first.name} do the same both times?"
        both[first.motion == second.motion].append((asked, first, second))
    for first, second in combinations(scene.once(), 2):
        asked = f"do the {first.name} and the {second.name} do the same?"
        both[first.motion == second.motion].append((asked, first, second))
    while all(both.values()):
        same = chance.random() < 0.5
        asked, first, second = chance.choice(both[same])
        yield Asked(asked, "yes" if same else "no", "linked", (first.start, second.end))


def _detail(scene: Scene, chance: random.Random, _: Sequence[str]) -> Iterator[Asked]:
    """What number is under a shape; rare numbers as often as common ones."""
    by_number: dict[int, list[Event]] = {}
    for event in scene.once():
        by_number.setdefault(event.number, []).append(event)
    while by_number:
        number = chance.choice(sorted(by_number))
        event = chance.choice(by_number[number])
        asked = f"what number is under the {event.name}?"
        yield Asked(asked, NUMBERS[number], "detail", (event.start, event.end))


def _pairs(scene: Scene) -> list[tuple[Event, Event]]:
    """The two times of each object that comes twice."""
    by_name: dict[str, list[Event]] = {}
    for event in scene.events:
        by_name.setdefault(event.name, []).append(event)
    return [(found[0], found[1]) for found in by_name.values() if len(found) == 2]


def _absent(scene: Scene, chance: random.Random, colours: Sequence[str]) -> Iterator[Asked]:
    there = {event.name for event in scene.events}
    away = [f"{c} {s}" for c in colours for s in SHAPES if f"{c} {s}" not in there]
    everything = (0.0, scene.seconds)
    while away:
        draw = chance.random()
        name = chance.choice(away)
        if draw < ASKED_IN_VAIN:
            yield Asked(f"what does the {name} do?", "nothing", "absent", everything)
        elif draw < (1 + ASKED_IN_VAIN) / 2:
            yield Asked(f"is there {_article(name)} {name}?", "no", "absent", everything)
        else:
            event = chance.choice(scene.events)
            yield Asked(
                f"is there {_article(event.name)} {event.name}?",
                "yes",
                "absent",
                (event.start, event.end),
            )


def _article(name: str) -> str:
    return "an" if name[0] in "aeio" else "a"


def _plural(shape: str) -> str:
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


_Ask = Callable[[Scene, random.Random, Sequence[str]], Iterator[Asked]]


def _ways(scene: Scene) -> dict[str, _Ask]:
    """By kind, what asks without end about a scene."""
    ways: dict[str, _Ask] = {
        "early": _within(0.0, 1 / 3, "early"),
        "middle": _within(1 / 3, 2 / 3, "middle"),
        "late": _within(2 / 3, 1.0, "late"),
        "ordered": _ordered,
        "counted": _counted,
        "compared": _compared,
        "absent": _absent,
    }
    if scene.world == "hard":
        ways |= {"returning": _returning, "linked": _linked}
    if all(event.number for event in scene.events):
        ways["detail"] = _detail
    return ways
