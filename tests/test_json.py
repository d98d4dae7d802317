"""The JSON of commands: as the schema has it, and as docs/json.md shows it.

Run as a script, it writes the tables and the examples of that page.
"""

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from helpers.commands import FAST, SAMPLE
from helpers.hub_models import publish_vlm
from jsonschema import Draft202012Validator

import malmm_cli

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "json.md"
SCHEMA = json.loads(
    (REPOSITORY / "malmm_cli" / "assets" / "schema" / "malmm-1.json").read_text("utf-8")
)
TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
EXAMPLE = re.compile(r"```sh\n((?:printf|malmm) [^\n]*)\n```\n\n```json\n(.*?)```", re.DOTALL)
WORDS = {"string": "text", "null": "null", "boolean": "true or false", "array": "list"}
CHANGING = {"seconds", "malmm", "weights"}  # how long stages took, versions, hashes


# --- the schema


def strict(part):
    """The schema with no key allowed that it does not name."""
    if isinstance(part, list):
        return [strict(inner) for inner in part]
    if not isinstance(part, dict):
        return part
    part = {key: strict(value) for key, value in part.items()}
    if "properties" in part and part.get("type") == "object":
        part = {"unevaluatedProperties": False, **part}
    return part


def open_(part):
    """A definition that another one extends, which then says what is allowed."""
    return {key: value for key, value in part.items() if key != "unevaluatedProperties"}


STRICT = strict(SCHEMA)
for extended in ("rate", "result", "failure"):
    STRICT["$defs"][f"open_{extended}"] = open_(STRICT["$defs"][extended])
for extending in ("bin", "captions"):
    STRICT["$defs"][extending]["allOf"] = [{"$ref": "#/$defs/open_rate"}]
STRICT["$defs"]["batch_line"]["anyOf"] = [
    {"$ref": "#/$defs/open_result"},
    {"$ref": "#/$defs/open_failure"},
]


def assert_valid(content, name=None):
    """Content is of a definition, and has no key that is not documented."""
    for schema in (SCHEMA, STRICT):
        part = {**schema, "anyOf": [{"$ref": f"#/$defs/{name}"}]} if name else schema
        errors = [
            f"{e.json_path}: {e.message}" for e in Draft202012Validator(part).iter_errors(content)
        ]
        assert not errors, errors


def test_the_schema_is_one():
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"schema": "malmm/1"}, None),
        (
            {
                "schema": "malmm/2",
                "video": "a",
                "task": "ask",
                "error": {"kind": "", "message": ""},
            },
            None,
        ),
        ({"schema": "malmm/1", "video": "a", "task": "ask", "error": {"kind": "K"}}, "failure"),
        ({"exact": None, "count": 0, "interval": [1]}, "rate"),
        ({"exact": None, "count": 0, "interval": None, "more": 1}, "rate"),
        ([{"schema": "malmm/1"}], None),
    ],
)
def test_what_is_not_of_the_schema(content, name):
    with pytest.raises(AssertionError):
        assert_valid(content, name)


def test_captions_answers_and_failures(malmm, tmp_path):
    single = [
        (["caption", SAMPLE], "result"),
        (["ask", SAMPLE, "what moves?"], "result"),
        (["caption", "nope.mp4"], "failure"),
    ]
    for arguments, name in single:
        found = json.loads(malmm(*arguments, *FAST, "--json").out)
        assert_valid(found)
        assert_valid(found, name)
    for arguments in (["caption", SAMPLE, "nope.mp4"], ["ask", SAMPLE, "what?", "where?"]):
        found = json.loads(malmm(*arguments, *FAST, "--json").out)
        assert isinstance(found, list)
        assert_valid(found)
    path = tmp_path / "a.memory"
    few = ("--model", "tiny", "--frames", "4", "--memory", "2", "-q")
    assert malmm("remember", SAMPLE, "-o", path, *few).code == 0
    assert_valid(json.loads(malmm("ask", path, "what?", "-q", "--json").out), "result")


def test_lines_of_a_batch(malmm, tmp_path, monkeypatch, clip):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    shutil.copy(clip, "videos/a.mp4")
    (tmp_path / "videos" / "b.mp4").write_bytes(b"no video")
    for output in ("out.jsonl", "out/"):
        assert malmm("batch", "videos", *FAST, "-o", output).code == 1
    for path in (Path("out.jsonl"), Path("out/results.jsonl")):
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        assert len(lines) == 2
        for line in lines:
            assert_valid(line, "batch_line")


def test_frames(malmm):
    assert_valid(json.loads(malmm("frames", SAMPLE, "--frames=3", "-q", "--json").out), "frames")


@pytest.mark.parametrize(
    ("name", "kind"), [("nope.mp4", "Missing"), ("text.mp4", "NotAVideo"), ("", "UsageError")]
)
def test_frames_of_what_is_no_video(malmm, tmp_path, monkeypatch, name, kind):
    monkeypatch.chdir(tmp_path)
    Path("text.mp4").write_text("no video")
    done = malmm("frames", name, "--json")
    assert done.code == 2
    failure = json.loads(done.out)
    assert_valid(failure, "failure")
    assert (failure["task"], failure["error"]["kind"]) == ("frames", kind)
    assert done.err.startswith(f"error: {failure['error']['message']}\n")
    assert malmm("frames", name).out == ""
    assert malmm("frames", SAMPLE, "--frames=0", "--json").out == "", "wrong use is no failure"


def test_models_and_doctor(malmm):
    for arguments, name in (
        (["models", "info", "tiny"], "model"),
        (["models", "info", "vicuna-13b"], "model"),
        (["models", "info", "someone/model"], "model"),
        (["doctor"], "doctor"),
    ):
        found = json.loads(malmm(*arguments, "--json").out)
        assert_valid(found, name)
        assert_valid(found)
    assert_valid(json.loads(malmm("models", "--json").out))


def test_a_check(malmm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = publish_vlm(tmp_path, "someone/model", "smolvlm")
    found = json.loads(malmm("models", "check", folder, "-q", "--device", "cpu", "--json").out)
    assert_valid(found, "check")
    assert_valid(found)


def test_evaluations(malmm, tmp_path, monkeypatch):
    monkeypatch.setattr("malmm_cli.evaluate.scores.meteor", lambda *_: 0.25)
    monkeypatch.setattr("malmm_cli.evaluate.ablation.LENGTHS", (2,))
    monkeypatch.setattr("malmm_cli.evaluate.ablation.FRAMES", (5,))
    monkeypatch.setattr("malmm_cli.evaluate.ablation.SEEDS", (0, 1))
    shutil.copy(SAMPLE, tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_bytes(b"no video")
    asked = {"question": "what?", "kind": "late", "evidence": [3, 9], "choices": ["red", "blue"]}
    tasks = [{"id": "1", "video": "a.mp4", "answer": "red", **asked}]
    tasks += [{"id": str(k), "video": "a.mp4", "answer": "a red star"} for k in (2, 3)]
    tasks += [{"id": "4", "video": "b.mp4", "answer": "x", "question": "what?"}]
    data = tmp_path / "tasks.jsonl"
    data.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    found = json.loads(malmm("eval", data, *FAST, "--choices", "--json").out)
    assert_valid(found, "evaluation")
    assert_valid(found)
    lines = (tmp_path / "tasks.predictions.jsonl").read_text("utf-8").splitlines()
    assert_valid(json.loads(lines[0]), "predictions_header")
    for line in lines[1:]:
        assert_valid(json.loads(line), "prediction")
    found = json.loads(malmm("eval", data, *FAST, "--ablate", "--json").out)
    assert_valid(found, "ablation")
    assert_valid(found)


def test_growth(malmm, monkeypatch):
    def in_child(_, *, frames, memory, **__):
        row = {"tokens": 32, "context": None, "peak_mib": 400, "peak_device_mib": 0}
        row |= {"failed": None, "device": "cpu", "dtype": "float32"}
        if memory or frames < 40:
            return row
        return {**row, "tokens": None, "peak_mib": None, "failed": "no room", "most": 20}

    monkeypatch.setattr(import_module("malmm_cli.bench.growth"), "in_child", in_child)
    found = json.loads(malmm("bench", "growth", "--model", "tiny", "--json").out)
    assert len(found["growth"]) == 4
    assert_valid(found, "growth")
    assert_valid(found)


# --- the page


def kind_of(part):
    """The type of a value, in words."""
    if "$ref" in part:
        return SCHEMA["$defs"][part["$ref"].rpartition("/")[2]]["title"]
    if "anyOf" in part:
        return " or ".join(map(kind_of, part["anyOf"]))
    if "const" in part or "enum" in part:
        return "text"
    kinds = part["type"] if isinstance(part["type"], list) else [part["type"]]
    words = [WORDS.get(kind, kind) for kind in kinds]
    if "array" in kinds:
        words[kinds.index("array")] = f"list of {kind_of(part['items'])}s".replace("texts", "text")
    return " or ".join(words)


def rows(part, prefix=""):
    for name, inner in part.get("properties", {}).items():
        yield f"| `{prefix}{name}` | {kind_of(inner)} | {inner['description']} |"
        nested = inner.get("items", inner)
        yield from rows(nested, f"{prefix}{name}{'[]' if 'items' in inner else ''}.")


def table(name):
    head = ["", "| key | type | meaning |", "|---|---|---|"]
    return "\n".join([*head, *rows(SCHEMA["$defs"][name]), "", ""])


def with_tables(text):
    return TABLE.sub(lambda found: found[1] + table(found[2]) + found[3], text)


def run(command, malmm, monkeypatch):
    """The output of a command of the page."""
    *before, command = command.split(" | ")
    given = shlex.split(before[0])[1].encode().decode("unicode_escape") if before else ""
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    name, *arguments = shlex.split(command)
    assert name == "malmm"
    return malmm(*arguments).out


def parsed(text):
    """One object, a list, or the objects of lines."""
    try:
        return json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.splitlines()]


def plain(content):
    """The content without what changes from run to run; of times, only which there are."""
    if isinstance(content, list):
        return [plain(part) for part in content]
    if not isinstance(content, dict):
        return content
    return {
        key: sorted(value) if key in CHANGING and isinstance(value, dict) else plain(value)
        for key, value in content.items()
        if key not in CHANGING or isinstance(value, dict)
    }


def renewed(found):
    """An example with what its command prints, unless only times differ."""
    shell = f'malmm() {{ "{sys.executable}" -m malmm_cli "$@"; }}\n{found[1]}'
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, cwd=REPOSITORY)
    same = found[2] and plain(parsed(found[2])) == plain(parsed(done.stdout))
    return found[0] if same else found[0].replace(f"```json\n{found[2]}", f"```json\n{done.stdout}")


def test_the_tables_are_those_of_the_schema():
    text = PAGE.read_text("utf-8")
    assert with_tables(text) == text, "run `make pages`"
    shown = {found[2] for found in TABLE.finditer(text)}
    assert shown == SCHEMA["$defs"].keys() - {"ablation", "predictions_header"}


def test_there_are_examples():
    assert len(EXAMPLES) >= 5


EXAMPLES = [(found[1], found[2]) for found in EXAMPLE.finditer(PAGE.read_text("utf-8"))]


@pytest.mark.parametrize(("command", "shown"), EXAMPLES)
def test_examples(malmm, monkeypatch, command, shown):
    monkeypatch.chdir(REPOSITORY)
    printed = parsed(run(command, malmm, monkeypatch))
    assert plain(parsed(shown)) == plain(printed), "run `make pages`"
    assert_valid(parsed(shown))


def test_the_version_is_in_the_examples():
    assert f'"malmm": "{malmm_cli.__version__}"' in PAGE.read_text("utf-8")


def test_help_says_which_form(malmm):
    for command in ("ask", "caption"):
        text = " ".join(malmm(command, "--help").out.split())
        assert "--json prints one object for one" in text
        assert "--format jsonl" in text


if __name__ == "__main__":
    PAGE.write_text(EXAMPLE.sub(renewed, with_tables(PAGE.read_text("utf-8"))), "utf-8")
