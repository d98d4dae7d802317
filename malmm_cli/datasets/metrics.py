"""Metrics of a text: exact match after normalisation, and caption scores.

Normalisation is that of the VQA challenge in all but its list of misspelt contractions, and in what
it does to numbers, symbols and other languages: see `normalised`. Captions are scored by
coco-caption's own code (pycocoevalcap, the extra `eval`) on words that are split as its Java
tokenizer splits them.
"""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Sequence

import regex  # unlike re, it knows combining marks, symbols and scripts

from malmm_cli.errors import UsageError

__all__ = ["canonical", "caption_scores", "each_caption", "is_right", "normalised", "words"]

_NUMBERS = {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
} | {"none": "0"}
_ARTICLES = ("a", "an", "the")

# Soft hyphens, marks of direction, variation selectors and the like are invisible. Joiners count
# where they distinguish words or emoji: between Arabic letters, at a virama, between emoji.
_UNSEEN = regex.compile(
    r"(?V1)((?<=\p{bc=AL})\u200c(?=\p{bc=AL})"
    r"|(?<=\p{ccc=9})[\u200c\u200d](?=\p{L})|[\u200c\u200d](?=\p{ccc=9})"
    r"|(?<=\p{S}\p{Variation_Selector}?)\u200d(?=\p{S}))"
    r"|[[\p{Cf}\p{Variation_Selector}\u034f\u0640]--[\U000e0020-\U000e007f]]"
)
# The same letters in another shape: wide, narrow, joined to their neighbours. Superscripts,
# subscripts, fractions and letters in circles mean something else and are kept.
_SHAPES = regex.compile(
    r"(?V1)[\p{dt=wide}\p{dt=narrow}\p{dt=nobreak}\p{dt=small}\p{dt=vertical}\p{dt=initial}"
    r"\p{dt=medial}\p{dt=final}\p{dt=isolated}[\p{dt=compat}&&[\p{L}\p{Nl}]]]"
)
_DIGITS = regex.compile(r"(?V1)[\p{Nd}--[0-9]]")
_ALIKE = str.maketrans(dict.fromkeys("’‘‛ʼ´`", "'") | dict(zip("−‐٪٫٬", "--%.,", strict=True)))

# in numbers: what groups digits, a sign, a point in front, a fraction; in words: an apostrophe
_GROUPS = regex.compile(r"(?<=\d)[,'](?=(?:\d\d,){0,9}\d{3}(?!\d))")
_SIGN = regex.compile(r"(?<![^\s\p{Ps}\p{Pi}\p{Sc}\"'<=>~≈*+×÷])[-–](?=\p{Sc}?\.?\d)")
_MINUS = regex.compile(  # at the end of a word (A-), where it is neither a range nor a dash
    r"(?<=\w)[-–](?=[\p{Pe}\p{Pf}\p{Po}]*(?:\s|$)|[,;:/])(?!(?<=\d.)\s*\.?\d)"
)
_POINT = regex.compile(r"(?<![\w.])\.(?=\d)")
# Stars that stress a word or begin an item of a list, in Markdown, are not said.
_STRESS = regex.compile(r"(?<!\w)(\*{1,3})([^\s*](?:[^*]*[^\s*])?)\1(?!\w)|^\s*\*()(?=\s+\S)")
_SLASH = regex.compile(r"(?<=\d) ?/ ?(?=\d)")
_APOSTROPHE = regex.compile(r"(?<=\w)['′](?=[^\W\d])|(?<=[^\W\d])['′](?=\w)")

# Punctuation that is said: signs, and four Burmese words.
_SAID = r"*%‰‱&#@§¶†‡′″‴※\u104c-\u104f"
_PUNCTUATION = regex.compile(rf"(?V1)(?<!\d)\.|\.(?!\d)|[[\p{{P}}\p{{Cc}}]--[.{_SAID}]]")
_SYMBOLS = regex.compile(rf"(?V1)([[\p{{S}}{_SAID}]--[−]](?:\u200d\p{{S}})*)")

# Words and numbers with what may be inside them (t-shirt, 3.5, o'clock), brackets and symbols; all
# else is punctuation, which coco-caption drops. Brackets it means to drop, but does not.
_WORDS = regex.compile(
    r"(?V1)c\+\+|[cf]#"
    r"|(?:(?<!\w)(?:-?\.|-)(?=\d))?[\w\p{No}]+(?:(?:[-'./,&]|(?<=\d):(?=\d))[\w\p{No}]+)*"
    rf"|[\]\[()\{{\}}/\p{{S}}{_SAID}]"
)
_BRACKETS = dict(zip("()[]{}", "-lrb- -rrb- -lsb- -rsb- -lcb- -rcb-".split(), strict=True))
_ENDINGS = regex.compile(r"(?<=\w)(?=n't$)|(?<=\w)(?='(?:s|m|d|ll|re|ve)$)")
_APART = {"cannot": "can not", "gonna": "gon na", "gotta": "got ta", "wanna": "wan na"} | _BRACKETS


def canonical(text: str) -> str:
    """The text in lower case and in one of the forms in which the same text can be written.

    Letters with their marks as one character, where there is such a one; digits of every script as
    0 … 9; one apostrophe, hyphen and minus; nothing that is not seen. ß stays: it is not ss.
    """
    if not text.isascii():
        text = _UNSEEN.sub(r"\1", text)
        text = _SHAPES.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
        text = _DIGITS.sub(lambda found: str(unicodedata.decimal(found[0], found[0])), text)
    text = text.lower().replace("i\u0307", "i")  # İ has a dot, which i has anyway
    return unicodedata.normalize("NFC", text).translate(_ALIKE)


def normalised(text: str) -> str:
    """Canonical; no punctuation; "zero" … "ten" and "none" as digits; no articles.

    A comma between groups of digits and an apostrophe within a word go without trace, all other
    punctuation becomes a space. What changes a number stays: its sign, its point, the stroke of a
    fraction. So do symbols (+, %, △), each as a word of its own, and a minus at the end of a word.
    Articles stay where nothing else is, and so does punctuation.
    """
    return " ".join(_said(text))


def _said(text: str) -> list[str]:
    """The words of a text normalised; symbols within one of them are apart."""
    text = _STRESS.sub(r"\2", canonical(text))
    plain = _POINT.sub("0.", _SIGN.sub("−", _MINUS.sub("−", _GROUPS.sub("", text))))
    plain = _PUNCTUATION.sub(" ", _APOSTROPHE.sub("", _SLASH.sub("⁄", plain)))
    found = plain.split() or text.split()
    return [
        " ".join(_NUMBERS.get(part, part) for part in _SYMBOLS.sub(r" \1 ", word).split())
        for word in [word for word in found if word not in _ARTICLES] or found
    ]


def is_right(text: str, answers: Sequence[str], *, first_word: bool = False) -> bool:
    """Whether text equals any answer, all of them normalised; or its first word alone does."""
    said = _said(text)
    return " ".join(said[:1] if first_word else said) in map(normalised, answers)


def caption_scores(texts: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """CIDEr, BLEU-4 and ROUGE-L of texts, each with its references; 0 … 1, CIDEr 0 … 10.

    CIDEr weighs words by how few captions of the whole set have them, so that of one alone is 0.
    Raises UsageError where the extra `eval` is not installed.
    """
    return each_caption(texts, references)[0]


def each_caption(
    texts: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """What `caption_scores` gives, and the values of which CIDEr and ROUGE-L are the means."""
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise UsageError(
            f"captions cannot be scored: {error}", hint="pip install 'malmm[eval]'"
        ) from error
    candidates = {number: [" ".join(words(text))] for number, text in enumerate(texts)}
    targets = {n: [" ".join(words(text)) for text in given] for n, given in enumerate(references)}
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # Bleu prints
        bleu = Bleu(4).compute_score(targets, candidates)[0][3]
    cider, ciders = Cider().compute_score(targets, candidates)
    rouge, rouges = Rouge().compute_score(targets, candidates)
    scores = {"cider": float(cider), "bleu4": float(bleu), "rouge_l": float(rouge)}
    return scores, {"cider": list(map(float, ciders)), "rouge_l": list(map(float, rouges))}


def words(text: str) -> list[str]:
    """The words of a caption, canonical, without punctuation, contractions taken apart."""
    found = []
    for word in _WORDS.findall(canonical(text)):
        found += _APART.get(word, _ENDINGS.sub(" ", word)).split()
    return found
