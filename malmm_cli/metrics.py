"""How right a text is: exact match after normalisation, and the scores of captions.

Normalisation is that of the VQA challenge in all but its list of misspelt contractions: see
`normalised`. Captions are scored by coco-caption's own code (pycocoevalcap, the extra `eval`) on
words that are split as its Java tokenizer splits them.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence

from malmm_cli.errors import UsageError

__all__ = ["caption_scores", "is_right", "normalised", "words"]

_NUMBERS = {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
} | {"none": "0"}
_ARTICLES = ("a", "an", "the")

# a comma in a number, an apostrophe in a word: nothing is left in their place
_INSIDE = re.compile(r"(?<=\d),(?=\d)|(?<=\w)['’](?=\w)")
_PUNCTUATION = re.compile(r"(?<!\d)\.|\.(?!\d)|[^\w\s.]|_")

# Words and numbers with what may be inside them (t-shirt, 3.5, o'clock), brackets and symbols; all
# else is punctuation, which coco-caption drops. Brackets it means to drop, but does not.
_WORDS = re.compile(r"\w+(?:[-'’./,&]\w+)*|[][(){}&$%#+=*/@<>|^~]")
_BRACKETS = dict(zip("()[]{}", "-lrb- -rrb- -lsb- -rsb- -lcb- -rcb-".split(), strict=True))
_ENDINGS = re.compile(r"(?<=\w)(?=n['’]t$)|(?<=\w)(?=['’](?:s|m|d|ll|re|ve)$)")
_APART = {"cannot": "can not", "gonna": "gon na", "gotta": "got ta", "wanna": "wan na"} | _BRACKETS


def normalised(text: str) -> str:
    """Lower case; no punctuation; "zero" … "ten" and "none" as digits; no articles.

    A comma between digits and an apostrophe within a word go without trace, a point between digits
    stays, all other punctuation becomes a space. Articles stay where nothing else is.
    """
    plain = _PUNCTUATION.sub(" ", _INSIDE.sub("", text.lower()))
    said = [_NUMBERS.get(word, word) for word in plain.split()]
    return " ".join([word for word in said if word not in _ARTICLES] or said)


def is_right(text: str, answers: Sequence[str], *, first_word: bool = False) -> bool:
    """Whether text equals any answer, all of them normalised; or its first word alone does."""
    said = normalised(text)
    if first_word:
        said = said.split(" ")[0]
    return said in map(normalised, answers)


def caption_scores(texts: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """CIDEr, BLEU-4 and ROUGE-L of texts, each with its references; 0 … 1, CIDEr 0 … 10.

    CIDEr weighs words by how few captions of the whole set have them, so that of one alone is 0.
    Raises UsageError where the extra `eval` is not installed.
    """
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise UsageError(
            f"captions cannot be scored: {error}", hint="pip install 'malmm[eval]'"
        ) from error
    told = {number: [" ".join(words(text))] for number, text in enumerate(texts)}
    due = {n: [" ".join(words(text)) for text in given] for n, given in enumerate(references)}
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # Bleu prints
        bleu = Bleu(4).compute_score(due, told)[0][3]
    cider = Cider().compute_score(due, told)[0]
    rouge = Rouge().compute_score(due, told)[0]
    return {"cider": float(cider), "bleu4": float(bleu), "rouge_l": float(rouge)}


def words(text: str) -> list[str]:
    """The words of a caption in lower case, without punctuation, contractions taken apart."""
    found = []
    for word in _WORDS.findall(text.lower()):
        found += _APART.get(word, _ENDINGS.sub(" ", word)).split()
    return found
