"""What scripts rely on: one object or a list, failures in place, questions on stdin."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import FAST, SAMPLE

import malmm_cli
from malmm_cli.models import registry
from malmm_cli.models.instructblip.model import InstructBlip
from malmm_cli.pipeline import loading

ASSETS = Path(malmm_cli.__file__).parent / "assets"
GONE = {
    "schema": "malmm/1",
    "video": "nope.mp4",
    "error": {"kind": "Missing", "message": "nope.mp4: no such file"},
}


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def stdin(monkeypatch):
    """Sets what is on standard input."""

    def put(content: bytes):
        stream = io.TextIOWrapper(io.BytesIO(content), "utf-8", "surrogateescape")
        monkeypatch.setattr("sys.stdin", stream)

    return put


# --- one object or a list


def test_one_video_and_one_question_are_one_object(malmm):
    for arguments in (["caption", SAMPLE], ["ask", SAMPLE, "what moves?"]):
        result = json.loads(malmm(*arguments, *FAST, "--json").out)
        assert result["malmm"] == malmm_cli.__version__
        (line,) = lines(malmm(*arguments, *FAST, "--format", "jsonl").out)
        assert line.keys() == result.keys()


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        (["caption", SAMPLE, SAMPLE], 2),
        (["caption", SAMPLE, "nope.mp4"], 2),
        (["caption", "nope.mp4", "nope.mp4"], 2),
        (["ask", SAMPLE, "what?", "where?", "which?"], 3),
        (["ask", "nope.mp4", "what?", "where?"], 2),
    ],
)
def test_everything_else_is_a_list(malmm, arguments, number):
    found = json.loads(malmm(*arguments, *FAST, "--json").out)
    assert isinstance(found, list)
    assert len(found) == number
    assert len(lines(malmm(*arguments, *FAST, "--format=jsonl").out)) == number


@pytest.mark.parametrize(
    ("arguments", "task"), [(["caption"], "caption"), (["ask", "what moves?"], "ask")]
)
def test_one_video_that_fails_is_its_failure(malmm, arguments, task):
    command, *questions = arguments
    done = malmm(command, "nope.mp4", *questions, *FAST, "--json")
    assert done.code == 2
    assert json.loads(done.out) == {**GONE, "task": task}
    assert done.err == "error: nope.mp4: no such file\n"
    again = malmm(command, "nope.mp4", *questions, *FAST, "--format", "jsonl")
    assert (again.code, again.err) == (2, done.err)
    assert lines(again.out) == [{**GONE, "task": task}]
    assert malmm(command, "nope.mp4", *questions, *FAST).out == ""


def test_a_failure_for_each_question(malmm):
    done = malmm("ask", "nope.mp4", "what?", "where?", *FAST, "--json")
    assert (done.code, done.err) == (2, "error: nope.mp4: no such file\n")
    assert json.loads(done.out) == [{**GONE, "task": "ask"}] * 2


def test_what_fails_later_is_a_failure_too(malmm, write_model):
    """A video that is sound, and more tokens than the language model reads: exit code 1."""
    folder = write_model("vicuna", context=64)
    options = ["--model", folder, "--memory=0", "--frames=10", "-q", "--json"]
    done = malmm("caption", SAMPLE, *options)
    assert done.code == 1
    assert json.loads(done.out)["error"]["kind"] == "CapacityError"
    assert done.err.startswith("error: ")


def test_a_fault_of_ours_is_a_failure_too(malmm, capsys, monkeypatch):
    monkeypatch.setattr(InstructBlip, "generate", lambda *about: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        malmm("caption", SAMPLE, *FAST, "--json")
    failure = json.loads(capsys.readouterr().out)
    assert failure["error"]["kind"] == "Unexpected"
    many = json.loads(malmm("caption", SAMPLE, SAMPLE, *FAST, "--json").out)
    assert many == [failure] * 2


def test_a_failure_is_written_where_a_result_would_be(malmm, tmp_path):
    path = tmp_path / "out.json"
    assert malmm("caption", "nope.mp4", *FAST, "-o", path).code == 2
    assert json.loads(path.read_text()) == {**GONE, "task": "caption"}
    assert malmm("caption", "nope.mp4", *FAST, "-o", path.with_suffix(".tsv")).code == 2
    _, row = path.with_suffix(".tsv").read_text().splitlines()
    assert row == "nope.mp4\t\t\t\t\tMissing: nope.mp4: no such file"
    for form in ("text", "srt", "vtt"):
        path = tmp_path / f"out.{form}"
        assert malmm("caption", "nope.mp4", *FAST, "-o", path).code == 2
        assert not path.exists(), "a form without failures"


@pytest.mark.parametrize(
    ("arguments", "task", "number"),
    [
        (["caption", SAMPLE], "caption", None),
        (["caption", SAMPLE, SAMPLE], "caption", 2),
        (["ask", SAMPLE, "what?"], "ask", None),
        (["ask", SAMPLE, "what?", "where?", "which?"], "ask", 3),
    ],
)
@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        (["-m", "no/where", "--offline"], "NotCached", "no/where is not fully downloaded"),
        (["-m", "empty"], "ModelError", "empty: config.json is missing"),
        (["-m", "tiny", "--max-new-tokens=5000"], "CapacityError", "--max-new-tokens 5000"),
        (["-m", "broken"], "ModelError", "broken: "),
    ],
)
def test_a_model_that_cannot_be_loaded_is_a_failure_of_each_item(
    malmm, tmp_path, monkeypatch, arguments, task, number, options, kind, says
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    shutil.copytree(ASSETS / "tiny", tmp_path / "broken")
    (tmp_path / "broken" / "tokenizer.json").write_text("{}")  # loading finds this one
    done = malmm(*arguments, *options, "-q", "--json")
    assert done.code == 1
    error, *hints = done.err.splitlines()
    assert error.startswith(f"error: {says}")
    assert len(hints) <= 1
    message = error.removeprefix("error: ")
    failure = {"schema": "malmm/1", "video": str(SAMPLE), "task": task}
    failure["error"] = {"kind": kind, "message": message}
    assert json.loads(done.out) == (failure if number is None else [failure] * number)
    again = malmm(*arguments, *options, "-q", "--format=jsonl")
    assert (again.code, again.err, lines(again.out)) == (1, done.err, [failure] * (number or 1))
    assert malmm(*arguments, *options, "-q").out == ""


@pytest.mark.parametrize(
    "options", [["--frames=0"], ["--model=no such model"], ["--format=json", "-o", "no/such.json"]]
)
def test_wrong_use_is_no_failure_of_a_video(refused, options):
    refused("caption", SAMPLE, *FAST, "--json", *options, code=2, says="")


# --- questions on stdin


def test_questions_from_stdin(malmm, stdin):
    stdin("\ufeffwhat moves?\r\n\n   \nwhere is the círculo?  \n".encode())
    answers = json.loads(malmm("ask", SAMPLE, "-", *FAST, "--json").out)
    questions = ["what moves?", "where is the círculo?"]
    assert [answer["question"] for answer in answers] == questions
    given = json.loads(malmm("ask", SAMPLE, *questions, *FAST, "--json").out)
    assert [answer["text"] for answer in answers] == [answer["text"] for answer in given]


def test_questions_from_stdin_are_a_list_even_if_one_came(malmm, stdin):
    stdin(b"what moves?")
    (answer,) = json.loads(malmm("ask", SAMPLE, "-", *FAST, "--json").out)
    assert answer["question"] == "what moves?"
    stdin(b"what moves?")
    text = malmm("ask", SAMPLE, "-", *FAST).out
    assert text == f"what moves?\t{answer['text']}\n"
    stdin(b"what moves?")
    assert malmm("ask", "nope.mp4", "-", *FAST, "--json").out.startswith("[\n")


def test_questions_in_utf_16(malmm, stdin):
    stdin("what moves?\r\nwo ist 漢?\n".encode("utf-16"))
    answers = json.loads(malmm("ask", SAMPLE, "-", *FAST, "--json").out)
    assert [answer["question"] for answer in answers] == ["what moves?", "wo ist 漢?"]


def test_stdin_stands_among_other_questions(malmm, stdin):
    stdin(b"two?\nthree?\n")
    answers = lines(malmm("ask", SAMPLE, "one?", "-", "four?", *FAST, "--format=jsonl").out)
    assert [answer["question"] for answer in answers] == ["one?", "two?", "three?", "four?"]


@pytest.mark.parametrize(
    ("content", "questions", "says"),
    [
        (b"", ["-"], "no question on stdin"),
        (b"\xef\xbb\xbf \n\n", ["-"], "no question on stdin"),
        (b"", ["what?", "-"], "no question on stdin"),
        (b"what?", ["-", "-"], "only once"),
        ("what?\n".encode("utf-16-le"), ["-"], "UTF-16 without a byte order mark"),
        (b"wh\0at?\n", ["-"], "are not text"),
        (b"w" * 70000, ["-"], "more than 65536 characters"),
        (b"caf\xe9?\n", ["-"], "error: stdin is neither UTF-8 nor UTF-16"),
        ("what?\n".encode("utf-16")[:-1], ["-"], "error: stdin is not valid UTF-16"),
    ],
)
def test_what_is_no_list_of_questions(refused, stdin, monkeypatch, content, questions, says):
    def load(*_, **__):
        raise AssertionError("a model was loaded for nothing")

    monkeypatch.setattr(loading, "load", load)
    stdin(content)
    refused("ask", SAMPLE, *questions, *FAST, code=2, says=says)


@pytest.mark.parametrize(
    ("questions", "noted"),
    [
        (("what", "is", "it"), True),
        (("what", "is", "it?"), True),
        (("what?", "where?"), False),
        (("what is it", "where"), False),
        (("what",), False),
    ],
)
def test_forgotten_quotation_marks_are_noted(malmm, questions, noted):
    loud = malmm("ask", SAMPLE, *questions, *FAST[:-1])
    assert loud.code == 0
    said = f"{len(questions)} questions of one word each; one question goes in quotation marks: "
    assert (f'{said}"{" ".join(questions)}"' in loud.err) == noted
    assert said not in malmm("ask", SAMPLE, *questions, *FAST).err


def test_stdin_is_read_for_no_other_command(malmm, stdin):
    stdin(b"what?\n")
    assert malmm("caption", "-", *FAST).code == 2


# --- results in Python


def test_a_result_as_a_dictionary_is_what_json_prints(malmm, load_once, monkeypatch):
    monkeypatch.setattr(registry, "load", load_once)
    model = malmm_cli.load("tiny")
    how = {"frames": 4, "beams": 2, "max_new_tokens": 4}
    found = malmm_cli.caption(SAMPLE, model=model, **how).to_dict()
    printed = json.loads(malmm("caption", SAMPLE, *FAST, "--json").out)
    assert found.pop("seconds").keys() == printed.pop("seconds").keys()
    assert list(found) == list(printed)
    assert found == printed
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    "arguments",
    [
        ("ask", "nowhere.mp4", "what?"),
        ("caption", SAMPLE, "--model", "nowhere"),
        ("caption", SAMPLE, "--device", "toaster"),
        ("remember", SAMPLE, "-o", "x.memory", "--policy", "last"),
        ("batch", "nowhere/", "-o", "x.jsonl"),
        ("batch", SAMPLE, "-o", "x.jsonl", "--model", "nowhere"),
        ("eval", "nowhere.jsonl"),
        ("train", "nowhere.jsonl", "-o", "x"),
    ],
)
def test_wrong_use_is_told_before_torch_is_imported(arguments, tmp_path):
    program = (
        "import sys; from malmm_cli.cli import run; code = run(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; raise SystemExit(code)"
    )
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("error: ")
