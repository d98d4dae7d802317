"""How right texts are, against hand-worked cases and against the values of the original tools."""

import json
import sys
from pathlib import Path

import pytest

from malmm_cli.errors import UsageError
from malmm_cli.metrics import caption_scores, is_right, normalised, words

GOLDEN = json.loads((Path(__file__).parent / "golden" / "captions.json").read_text("utf-8"))
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


def test_any_answer_counts_and_nothing_else():
    assert is_right("The two circles.", ["three circles", "2 circles"])
    assert not is_right("circles", ["2 circles"])
    assert not is_right("", ["circle"])


def test_the_first_word_alone_may_count():
    assert not is_right("guitar solo", ["guitar"])
    assert is_right("guitar solo", ["guitar"], first_word=True)
    assert is_right("a guitar", ["guitar"], first_word=True)
    assert not is_right("guitar solo", ["solo"], first_word=True)


def test_words_are_those_of_the_java_tokenizer():
    for caption in CAPTIONS:
        assert " ".join(words(caption["text"])) == caption["words"]
        found = [" ".join(words(text)) for text in caption["references"]]
        assert found == caption["reference_words"]


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
