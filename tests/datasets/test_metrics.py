"""How right texts are, against hand-worked cases and against the values of the original tools."""

import json
import sys
import unicodedata
from pathlib import Path

import pytest

from malmm_cli.datasets.metrics import caption_scores, is_right, normalised, words
from malmm_cli.errors import UsageError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "captions.json").read_text("utf-8"))
CAPTIONS = GOLDEN["captions"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Red Circle.", "red circle"),
        ("  a\tred \n circle ", "red circle"),
        ("two", "2"),
        ("Ten, or none?", "10 or 0"),
        ("1,000", "1000"),
        ("3.5 m.", "3.5 m"),
        ("a, b", "b"),
        ("t-shirt", "t shirt"),
        ("it isn't", "it isnt"),
        ("it isn’t", "it isnt"),
        ("yes!", "yes"),
        ("A", "a"),
        ("the", "the"),
        ("Grüße", "grüße"),
        ("snake_case", "snake case"),
        ("", ""),
    ],
)
def test_normalisation(text, expected):
    assert normalised(text) == expected
    assert normalised(expected) == expected


def decomposed(text):
    return unicodedata.normalize("NFD", text)


SAME = {
    "composed or not": [
        ("cafe\u0301", "café"),
        (decomposed("한국"), "한국"),
        (decomposed("Việt"), "Việt"),
        ("カ\u3099", "ガ"),
        ("ｶﾞ", "ガ"),
        (decomposed("İstanbul"), "istanbul"),
        (decomposed("J̌"), "ǰ"),
    ],
    "case": [("İstanbul", "istanbul"), ("GRÜẞE", "Grüße"), ("ΟΔΌΣ", "οδός"), ("ＲＥＤ", "red")],
    "not seen": [
        ("foot\u00adball", "football"),
        ("ไม่\u200bดี", "ไม่ดี"),
        ("\ufeffred", "red"),
        ("\u200ered\u202c", "red"),
        ("Auf\u200cl\u200dage", "Auflage"),
        ("葛\U000e0100", "葛"),
        ("♥\ufe0f", "♥"),
        ("محـــمد", "محمد"),
    ],
    "shape": [("ﺳﻼم", "سلام"), ("ﬁsh", "fish"), ("5 µm", "5 μm")],
    "spaces": [("red\u00a0circle", "red circle"), ("赤\u3000丸", "赤 丸"), ("5\u202f%", "5%")],
    "digits": [("५", "5"), ("٣٫٥", "3.5"), ("１２", "12"), ("٥٪", "5 %")],
    "apostrophes": [("isn´t", "isn't"), ("isnʼt", "isn’t"), ("`red`", "red"), ("1980’s", "1980s")],
    "punctuation": [
        ("हाँ।", "हाँ"),
        ("赤。", "赤"),
        ("سلام؟", "سلام"),
        ("«red»", "red"),
        ("**a**", "a"),
    ],
    "numbers": [
        ("−5", "-5"),
        ("–5", "-5"),
        ("1,00,000", "100000"),
        ("1'000", "1000"),
        (".5", "0.5"),
        ("-.5", "−0.5"),
        ("1 / 2", "1/2"),
        ("3-5", "3, 5"),
        ("ten%", "10 %"),
        ("$ 5", "$5"),
        ("20 °C", "20°C"),
        ("5- 10", "5, 10"),
        ("$5-$10", "$5, $10"),
    ],
    "symbols": [
        ("C ++", "c++"),
        ("a △", "△"),
        ("?", " ? "),
        ("A−", "A-"),
        ("A–", "A-"),
        ("an A-.", "A-"),
        ("“A-”", "a-"),
        ("A-, B+", "A- / B+"),
        ("A-/B+", "A- B+"),
        ("2 * 3", "2*3"),
        ("B ＊", "b*"),
        ("a *red* ball", "red ball"),
        ("**red** 2*3*4", "red 2 * 3 * 4"),
        ("* red", "red"),
    ],
    "hyphens and dashes": [
        ("well-known,", "well known"),
        ("red -", "red"),
        ("red - blue", "red blue"),
        ("red -- blue", "red blue"),
        ("red--", "red"),
        ("red-- blue", "red blue"),
        ("red—blue", "red blue"),
        ("red—", "red"),
        ("- red", "red"),
    ],
}
OTHER = {
    "marks": [("दिन", "दीन"), ("कि", "की"), ("দিন", "দান"), ("ไม่", "ไม้"), ("ကို", "ကူ"), ("កី", "កូ")],
    "letters": [("Maße", "Masse"), ("sınır", "sinir"), ("café", "cafe"), ("သူ၏", "သူ")],
    "joiners": [("تن\u200cها", "تنها"), ("र\u200d्य", "र्य"), ("👩\u200d🚒", "👩🚒")],
    "symbols": [
        ("△", "□"),
        ("C++", "C#"),
        ("C++", "C"),
        ("A+", "A"),
        ("A-", "A"),
        ("A−", "A"),
        ("A–", "A"),
        ("A-", "A+"),
        ("AB-", "AB"),
        ("A*", "A"),
        ("2*3", "2 3"),
        ("2*-3", "2*3"),
        ("2+-3", "2+3"),
        ("5-", "5"),
        ("5-", "-5"),
        ("(A-)", "A"),
        ("A-, B", "A, B"),
        ("50 %", "50"),
        ("$5", "€5"),
        ("20°", "20"),
        ("black & white", "black white"),
        ("👍🏽", "👍🏿"),
        ("🇩🇪", "🇫🇷"),
        (
            "🏴\U000e0067\U000e0062\U000e0065\U000e007f",
            "🏴\U000e0067\U000e0062\U000e0073\U000e007f",
        ),
        ("5′", "5″"),
        ("?", "!"),
        ("?", ""),
    ],
    "numbers": [
        ("-5", "5"),
        ("3.5", "35"),
        ("3,5", "35"),
        (".5", "5"),
        ("1/2", "12"),
        ("1/2", "1, 2"),
        ("5'10", "510"),
        ("10²", "102"),
    ],
}


@pytest.mark.parametrize("kind", SAME)
def test_what_is_the_same_in_another_form_is_right(kind):
    for one, other in SAME[kind]:
        assert is_right(one, [other]), (one, other)
        assert is_right(other, [one]), (other, one)


@pytest.mark.parametrize("kind", OTHER)
def test_what_is_something_else_is_wrong(kind):
    for one, other in OTHER[kind]:
        assert not is_right(one, [other]), (one, other)
        assert not is_right(other, [one]), (other, one)


def test_any_answer_counts_and_nothing_else():
    assert is_right("The two circles.", ["three circles", "2 circles"])
    assert not is_right("circles", ["2 circles"])
    assert not is_right("", ["circle"])


def test_the_first_word_alone_may_count():
    assert not is_right("guitar solo", ["guitar"])
    assert is_right("guitar solo", ["guitar"], first_word=True)
    assert is_right("a guitar", ["guitar"], first_word=True)
    assert not is_right("guitar solo", ["solo"], first_word=True)
    assert is_right("C++ code", ["c++"], first_word=True)
    assert not is_right("C++ code", ["c"], first_word=True)


def test_words_are_those_of_the_java_tokenizer():
    for caption in CAPTIONS:
        assert " ".join(words(caption["text"])) == caption["words"]
        found = [" ".join(words(text)) for text in caption["references"]]
        assert found == caption["reference_words"]


def test_words_of_captions_keep_what_tells_them_apart():
    assert words("हाँ, दिन।") == ["हाँ", "दिन"]
    assert words("ไม่ ไม้") == ["ไม่", "ไม้"]
    assert words("△ is □; C++, C#") == ["△", "is", "□", "c++", "c#"]
    assert words("-5 of 10:30 at .5") == ["-5", "of", "10:30", "at", ".5"]
    assert words("cafe\u0301 foot\u00adball it’s") == ["café", "football", "it", "'s"]


def test_caption_scores_are_those_of_the_original_tools(capsys):
    texts = [caption["text"] for caption in CAPTIONS]
    references = [caption["references"] for caption in CAPTIONS]
    assert caption_scores(texts, references) == pytest.approx(GOLDEN["scores"], abs=1e-9)
    assert capsys.readouterr().out == ""


def test_a_perfect_and_a_hopeless_caption():
    references = [["a red circle moves right"], ["a blue star spins"]]
    perfect = caption_scores([told[0] for told in references], references)
    assert perfect == pytest.approx({"cider": 10, "bleu4": 1, "rouge_l": 1}, abs=1e-6)
    hopeless = caption_scores(["so what", "who knows"], references)
    assert hopeless == pytest.approx({"cider": 0, "bleu4": 0, "rouge_l": 0}, abs=1e-3)


def test_without_the_extra_its_name_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap.bleu.bleu", None)
    with pytest.raises(UsageError) as caught:
        caption_scores(["a"], [["a"]])
    assert caught.value.hint == "pip install 'malmm[eval]'"
