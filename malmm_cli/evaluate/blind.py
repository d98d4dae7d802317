"""The blind guess: how many answers the question alone gives away, without the video.

Each question gets the commonest answer to the questions about *other* videos that begin with the
same words: the longest beginning that LEAST of them share, down to none. (The VQA challenge calls
the same with a fixed list of beginnings "per question type prior"; Antol et al., ICCV 2015.) An
answer quoted from its question, as in "which comes first, the star or the heart?", also counts by
its place: the second of these words may be the commonest answer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
    source = [task for task in learnt if not is_caption(task)]
    forms, alike = [], defaultdict(list)
    for index, task in enumerate(source):
        words = _words(task)
        forms.append({form for answer in task.answers for form in _forms(answer, words)})
        for length in range(len(words) + 1):
            alike[words[:length]].append(index)
    found = []
    for task in tasks:
        words, others = _words(task), list[int]()
        for length in range(len(words), -1, -1):
            others = [k for k in alike[words[:length]] if source[k].video != task.video]
            if len(others) >= LEAST:
                break
        if not others:
            return []
        counts = Counter(form for k in others for form in forms[k])
        found.append(_commonest(counts, words, task.choices if choices else ()))
    return found


def _commonest(counts: Counter[Form], words: Words, choices: Sequence[str]) -> str:
    """The commonest answer in the words of this question; of choices, the first where none is."""
    for form, _ in counts.most_common():
        text = form if isinstance(form, str) else " ".join(words[slice(*form)])
        if not choices:
            return text
        for choice in choices:
            if normalised(choice) == text:
                return choice
    return choices[0]


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
