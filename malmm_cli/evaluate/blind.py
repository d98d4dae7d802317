"""The blind guess: how many answers the question alone gives away, without the video.

Each question gets the commonest answer to the questions about *other* videos that begin with the
same words: the longest beginning that LEAST of them share, down to none. (The VQA challenge calls
the same with a fixed list of beginnings "per question type prior"; Antol et al., ICCV 2015.) An
answer quoted from its question, as in "which comes first, the star or the heart?", also counts by
its place: the second of these words may be the commonest answer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import structs

from malmm_cli.datasets.metrics import normalised
from malmm_cli.evaluate.predictions import Prediction
from malmm_cli.evaluate.scores import Age, Rule, is_caption, score
from malmm_cli.types import Task

__all__ = ["blind_scores", "guesses"]

LEAST = 10  # fewer questions say too little about the commonest answer

Words = tuple[str, ...]
Form = str | tuple[int, int]  # an answer: its text, or from where to where it is in the question


def blind_scores(
    tasks: Sequence[Task],
    said: Sequence[Prediction],
    rule: Rule,
    *,
    learnt: Sequence[Task] | None = None,
    choices: bool = False,
    known_ages: Mapping[str, Age] | None = None,
) -> dict[str, Any] | None:
    """The scores of the blind guess, as `score` gives them, over the questions a model answered.

    Guesses are learnt from the tasks in `learnt`, by default from these; those about the video in
    question are left out. None where that leaves nothing, or nothing was asked.
    """
    answered = [
        (task, one)
        for task, one in zip(tasks, said, strict=True)
        if one.text is not None and not is_caption(task)
    ]
    asked = [task for task, _ in answered]
    texts = guesses(asked, tasks if learnt is None else learnt, choices=choices)
    if not texts:
        return None
    guessed = [
        structs.replace(one, text=text) for (_, one), text in zip(answered, texts, strict=True)
    ]
    return score(asked, guessed, rule, known_ages)


def guesses(tasks: Sequence[Task], learnt: Sequence[Task], *, choices: bool = False) -> list[str]:
    """The guess at each task's answer; with `choices`, one of the task's, if it has any.

    Empty where no task is left to learn from for one of them.
    """
    known = _Known(task for task in learnt if not is_caption(task))
    found = [known.guess(task, task.choices if choices else ()) for task in tasks]
    return [] if None in found else [text for text in found if text is not None]


class _Known:
    """Answers by the words that their questions begin with."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self.answers = defaultdict[Words, list[set[Form]]](list)
        self.videos = defaultdict[str, list[tuple[Words, set[Form]]]](list)
        self.ranked: dict[Words, list[tuple[Form, int]]] = {}
        for task in tasks:
            words = _words(task)
            forms = {form for answer in task.answers for form in _forms(answer, words)}
            self.videos[task.video].append((words, forms))
            for length in range(len(words) + 1):
                self.answers[words[:length]].append(forms)

    def guess(self, task: Task, choices: Sequence[str]) -> str | None:
        """The guess at a task's answer; None where all questions are about its video."""
        words = _words(task)
        about = self.videos.get(task.video, [])
        for length in range(len(words), -1, -1):
            alike = self.answers.get(words[:length], [])
            own = [forms for other, forms in about if other[:length] == words[:length]]
            if len(alike) - len(own) >= (LEAST if length else 1):
                left_out = Counter(form for forms in own for form in forms)
                return self._commonest(words, length, left_out, choices)
        return None

    def _commonest(
        self, words: Words, length: int, left_out: Counter[Form], choices: Sequence[str]
    ) -> str:
        """The commonest answer after so many words of a question; of choices, if any are known.

        Of equals, the first in the alphabet: their order in the ranking hangs on what is left out.
        """
        allowed = {normalised(choice): choice for choice in reversed(choices)}
        best, most = "", 0
        for form, count in self._ranking(words[:length]):
            if count < max(most, 1):
                break
            text = form if isinstance(form, str) else " ".join(words[slice(*form)])
            left = count - left_out[form]
            if (text in allowed or not choices) and left and (-left, text) < (-most, best):
                best, most = text, left
        return allowed.get(best, choices[0]) if choices else best

    def _ranking(self, beginning: Words) -> list[tuple[Form, int]]:
        """The answers after a beginning and how often each is given, the commonest first."""
        if beginning not in self.ranked:
            counts = Counter(form for forms in self.answers[beginning] for form in forms)
            self.ranked[beginning] = counts.most_common()
        return self.ranked[beginning]


def _words(task: Task) -> Words:
    """The normalised words of what is asked; tasks with choices alone may have a prompt."""
    return tuple(normalised(task.question or task.prompt or "").split())


def _forms(answer: str, words: Words) -> Iterator[Form]:
    """The forms of an answer to a question of these words."""
    text = normalised(answer)
    yield text
    quoted = tuple(text.split())
    for start in range(len(words) - len(quoted) + 1):
        place = start, start + len(quoted)
        if quoted and words[slice(*place)] == quoted:
            yield place
            return
