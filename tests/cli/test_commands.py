"""The commands as a user meets them: help, defaults, where things are printed, and good runs."""

import errno
import json
import os
import re
import time

import pytest
from helpers.commands import FAST, SAMPLE

import malmm_cli
from malmm_cli import media
from malmm_cli.models.instructblip.defaults import ASK, CAPTION

RESULT = {
    "schema": str,
    "malmm": str,
    "video": str,
    "task": str,
    "prompt": str,
    "question": str | None,
    "text": str,
    "segments": [{"start": float, "end": float, "text": str}],
    "candidates": [str],
    "model": str,
    "revision": str | None,
    "device": str,
    "dtype": str,
    "memory": {"length": int, "policy": str, "banks": str},
    "frames": {"used": int, "first": float, "last": float, "duration": float},
    "seconds": dict.fromkeys(["open", "decode", "encode", "remember", "generate"], float),
    "warnings": [str],
}
FAILURE = {"schema": str, "video": str, "task": str, "error": {"kind": str, "message": str}}


def assert_fits(value, form, where="result"):
    """Every key there, none besides, and every value of its type."""
    if isinstance(form, dict):
        assert value.keys() == form.keys(), where
        for key, part in form.items():
            assert_fits(value[key], part, f"{where}.{key}")
    elif isinstance(form, list):
        assert isinstance(value, list), where
        for part in value:
            assert_fits(part, form[0], where)
    else:
        assert isinstance(value, form), f"{where} is {value!r}"


# --- help


def test_alone_it_shows_its_help(malmm):
    done = malmm()
    assert done == malmm("--help") == malmm("-h")
    assert (done.code, done.err) == (0, "")
    for command in ("caption", "ask", "batch", "frames", "models"):
        assert f"\n  {command} " in done.out


def test_version(malmm):
    done = malmm("--version")
    assert (done.code, done.out, done.err) == (0, f"malmm {malmm_cli.__version__}\n", "")


@pytest.mark.parametrize("command", ["caption", "ask", "batch", "frames", "models", "bench"])
def test_every_command_has_help_that_fits_a_terminal(malmm, command):
    done = malmm(command, "-h")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: malmm {command} ")
    assert max(map(len, done.out.splitlines())) <= 80
    if command not in ("models", "bench"):
        assert f"\n  malmm {command} " in done.out or command == "batch", "no example to copy"


def test_options_stand_under_headings(malmm):
    lines = malmm("caption", "--help").out.splitlines()
    headings = [line[:-1] for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Model", "Video", "Memory", "Text", "Output", "Cache", "Options"]
    assert lines.index("Memory:") < next(
        n for n, line in enumerate(lines) if line.startswith("  --memory")
    )


def test_no_summary_is_cut_off(malmm):
    assert "..." not in malmm("--help").out.replace("[ARGS]...", "")


# what interface and paper say, against drift of settings and help alike
DEFAULTS = {
    "caption": {
        "frames": 100,
        "memory": 20,
        "max-new-tokens": 50,
        "beams": 5,
        "length-penalty": 1.0,
        "repetition-penalty": 1.5,
        "prompt": "what does the video describe?",
    },
    "ask": {
        "frames": 20,
        "memory": 10,
        "max-new-tokens": 9,
        "beams": 5,
        "length-penalty": 0.0,
        "repetition-penalty": 1.5,
        "prompt": "Question: {} Short answer:",
    },
}
COMMON = {"policy": "mbc", "banks": "both", "decoder": "auto", "device": "auto", "dtype": "auto"}


@pytest.mark.parametrize("command", ["caption", "ask", "batch", "frames"])
def test_help_shows_the_defaults(malmm, command):
    text = " ".join(malmm(command, "--help").out.split())
    options = {part.split()[0]: part for part in re.split(r" (?:-\w, )?--", text)}
    defaults = {**DEFAULTS["ask" if command == "ask" else "caption"], **COMMON}
    if command == "frames":
        defaults = {"frames": 100, "decoder": "auto"}
    for name, value in defaults.items():
        assert f"default: {value}]" in options[name], name
    if command != "frames":
        assert "MALMM_MODEL; default: vicuna-7b]" in options["model"]


@pytest.mark.parametrize(("command", "settings"), [("caption", CAPTION), ("ask", ASK)])
def test_defaults_are_those_of_the_paper(command, settings):
    for name, value in (DEFAULTS[command] | {"policy": "mbc", "banks": "both"}).items():
        given = {**settings.as_dict(), **settings.as_dict()["decoding"]}
        assert given[name.replace("-", "_")] == value, name


# --- good runs


@pytest.fixture(params=["tiny", "vicuna", "flan-t5"])
def model(request, vicuna_folder, t5_folder):
    return {"tiny": "tiny", "vicuna": vicuna_folder, "flan-t5": t5_folder}[request.param]


def test_caption(malmm, model):
    done = malmm("caption", SAMPLE, *FAST, "--model", model)
    assert (done.code, done.err) == (0, "")
    assert done.out.strip()
    assert done.out.count("\n") == 1


def test_several_questions_get_the_answers_they_would_get_alone(malmm, model):
    options = [*FAST, "--model", model, "--json"]
    questions = ["what moves?", "which colour is the circle on the left?"]
    together = malmm("ask", SAMPLE, *questions, *options)
    assert (together.code, together.err) == (0, "")
    answers = json.loads(together.out)
    assert [answer["question"] for answer in answers] == questions
    for question, answer in zip(questions, answers, strict=True):
        alone = json.loads(malmm("ask", SAMPLE, question, *options).out)
        assert alone.pop("seconds").keys() == answer.pop("seconds").keys()
        assert alone == answer


@pytest.mark.parametrize(
    "arguments",
    [["caption", SAMPLE, SAMPLE, SAMPLE], ["ask", SAMPLE, "what?", "where?", "which?"]],
)
def test_several_videos_or_questions_load_the_model_once(malmm, monkeypatch, arguments):
    from malmm_cli.models import registry

    loads = []
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda *a, **k: loads.append(a) or load(*a, **k))
    assert len(malmm(*arguments, *FAST).out.splitlines()) == 3
    assert len(loads) == 1


def test_json_of_a_caption(malmm):
    done = malmm("caption", SAMPLE, *FAST, "--json")
    result = json.loads(done.out)
    assert_fits(result, RESULT)
    assert result["schema"] == "malmm/1"
    assert (result["task"], result["question"]) == ("caption", None)
    assert result["prompt"] == "what does the video describe?"
    assert result["video"] == str(SAMPLE)
    assert result["frames"] == {"used": 4, "first": 0.0, "last": 59.95, "duration": 60.0}
    assert result["segments"] == [{"start": 0.0, "end": 60.0, "text": result["text"]}]
    assert result["candidates"][0] == result["text"]
    assert len(result["candidates"]) == 2, "as many as beams"
    assert result["memory"] == {"length": 20, "policy": "mbc", "banks": "both"}
    assert (result["model"], result["revision"]) == ("tiny", None)
    assert result["warnings"] == []
    assert malmm("caption", SAMPLE, *FAST, "--format", "json").code == 0


def test_json_of_an_answer(malmm):
    result = json.loads(malmm("ask", SAMPLE, "what moves?", *FAST, "--json").out)
    assert_fits(result, RESULT)
    assert (result["task"], result["question"]) == ("ask", "what moves?")
    assert result["prompt"] == "Question: what moves? Short answer:"


def test_several_videos_with_one_that_fails(malmm):
    done = malmm("caption", SAMPLE, "nope.mp4", SAMPLE, *FAST, "--json")
    assert done.code == 1
    assert done.err == "error: nope.mp4: no such file\n"
    first, failed, last = json.loads(done.out)
    assert_fits(first, RESULT)
    assert_fits(failed, FAILURE)
    assert (failed["video"], failed["error"]["kind"]) == ("nope.mp4", "Missing")
    assert first["text"] == last["text"]
    lines = malmm("caption", SAMPLE, "nope.mp4", SAMPLE, *FAST, "--format", "jsonl").out
    assert [("error" in json.loads(line)) for line in lines.splitlines()] == [False, True, False]


def test_several_videos_as_text(malmm):
    done = malmm("caption", SAMPLE, "nope.mp4", SAMPLE, *FAST)
    assert done.code == 1
    lines = done.out.splitlines()
    assert len(lines) == 2
    assert {line.split("\t")[0] for line in lines} == {str(SAMPLE)}


def test_results_alone_go_to_stdout(malmm):
    options = ["--model", "tiny", "--frames", "4", "--beams", "1", "--max-new-tokens", "2"]
    plain = malmm("caption", SAMPLE, *options)
    quiet = malmm("caption", SAMPLE, *options, "-q")
    wordy = malmm("caption", SAMPLE, *options, "-v")
    assert plain.out == quiet.out == wordy.out
    assert quiet.err == ""
    assert plain.err.startswith(
        "tiny on cpu, float32\nnote: tiny is trained on `malmm synth` videos only"
    )
    assert wordy.err.startswith(plain.err)
    for stage in ("open", "decode", "encode", "remember", "generate"):
        assert re.search(rf"{stage} \d+\.\d\d s", wordy.err)


def test_a_video_is_probed_once(malmm, monkeypatch, tmp_path):
    probed, probe = [], media.probe
    monkeypatch.setattr(media, "probe", lambda *a, **k: probed.append(a[0]) or probe(*a, **k))
    for command in (
        ("ask", SAMPLE, "what moves?", *FAST),
        ("caption", SAMPLE, *FAST),
        ("remember", SAMPLE, "-o", tmp_path / "a.memory", "--model", "tiny", "--frames", "4", "-q"),
    ):
        assert malmm(*command).code == 0
        assert len(probed) == 1
        probed.clear()


def test_the_time_to_open_a_video_includes_probing(malmm, monkeypatch, tmp_path):
    check = media.check
    monkeypatch.setattr(media, "check", lambda path: time.sleep(0.2) or check(path))
    done = malmm("ask", SAMPLE, "what moves?", *FAST, "--json")
    assert json.loads(done.out)["seconds"]["open"] >= 0.2


def test_a_long_question_is_answered_with_a_warning(malmm):
    options = [option for option in FAST if option != "-q"]
    done = malmm("ask", SAMPLE, "what moves? " * 100, *options, "--json")
    assert done.code == 0
    result = json.loads(done.out)
    assert result["text"]
    (warning,) = result["warnings"]
    assert "the Q-Former reads only the last 128" in warning
    assert f"warning: {SAMPLE}: {warning}" in done.err


def test_the_model_may_come_from_the_environment(malmm, monkeypatch, vicuna_folder):
    options = ["--frames=2", "--beams=1", "--max-new-tokens=2", "--json"]
    monkeypatch.setenv("MALMM_MODEL", "tiny")
    assert json.loads(malmm("caption", SAMPLE, *options).out)["model"] == "tiny"
    options += ["--model", vicuna_folder]
    assert json.loads(malmm("caption", SAMPLE, *options).out)["model"] == str(vicuna_folder)


def test_sampling_with_a_seed_repeats(malmm):
    options = [*FAST, "--sample", "--temperature=9", "--max-new-tokens=12"]
    texts = [malmm("caption", SAMPLE, *options, f"--seed={seed}").out for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


def test_without_sampling_the_seed_changes_nothing(malmm):
    assert malmm("caption", SAMPLE, *FAST, "--seed=1") == malmm("caption", SAMPLE, *FAST)


@pytest.mark.parametrize(
    ("options", "first", "last", "used"),
    [
        (["--from=10", "--to=0:20"], 10.0, 20.0, 4),
        (["--from=0:00:59.9"], 59.9, 59.95, 2),
        (["--frames=1"], 30.0, 30.0, 1),
    ],
)
def test_the_part_asked_for(malmm, options, first, last, used):
    result = json.loads(malmm("caption", SAMPLE, *FAST, *options, "--json").out)
    assert result["frames"] == {"used": used, "first": first, "last": last, "duration": 60.0}


def test_frames_a_second(malmm):
    options = ["--model=tiny", "--beams=1", "--max-new-tokens=2", "--json", "--fps=0.5"]
    frames = json.loads(malmm("caption", SAMPLE, *options).out)["frames"]
    assert frames == {"used": 30, "first": 0.0, "last": 58.0, "duration": 60.0}
    frames = json.loads(malmm("caption", SAMPLE, *options, "--max-frames=5").out)["frames"]
    assert frames["used"] == 5


def test_the_newest_frame_alone_is_the_same_by_policy_and_by_banks(malmm, t5_folder):
    options = ["--model", t5_folder, "--frames=8", "--beams=2", "--max-new-tokens=12", "-q"]
    memory = malmm("caption", SAMPLE, *options).out
    newest = malmm("caption", SAMPLE, *options, "--policy=last").out
    assert newest == malmm("caption", SAMPLE, *options, "--banks=none").out
    assert newest != memory, "what came before should change the text"


def test_odd_names(malmm, tmp_path, monkeypatch, clip):
    monkeypatch.chdir(tmp_path)
    names = ["-dash.mp4", "sp ace.mp4", "ünï 🎬.mp4", "two\nlines\ttab.mp4", "a:b.mp4", "%d.mp4"]
    for name in names:
        (tmp_path / name).symlink_to(clip)
    done = malmm("caption", *FAST, "--format=jsonl", "--", *names)
    assert done.code == 0
    warnings = done.err.splitlines()
    assert [line.startswith("warning: ") for line in warnings] == [True] * 6
    assert all("unlike the drawn videos" in line for line in warnings)
    assert [json.loads(line)["video"] for line in done.out.splitlines()] == names
    table = malmm("caption", *FAST, "--format=tsv", "--", *names).out.splitlines()
    assert [line.count("\t") for line in table] == [5] * 7
    assert len(malmm("caption", *FAST, "--", *names).out.splitlines()) == 6


# --- models


def test_models(malmm):
    done = malmm("models", "list")
    assert done.out.splitlines()[0] == malmm("models").out.splitlines()[0]
    assert (done.code, done.err) == (0, "")
    rows = json.loads(malmm("models", "list", "--json").out)
    names = [line[2:].split()[0] for line in done.out.splitlines()[1 : len(rows) + 1]]
    assert [row["name"] for row in rows] == names
    by_name = {row["name"]: row for row in rows}
    assert {"vicuna-7b", "qwen3-vl-2b", "smolvlm2-256m", "tiny"} <= by_name.keys()
    assert by_name["vicuna-7b"]["repository"] == "Salesforce/instructblip-vicuna-7b"
    assert by_name["tiny"]["here"] is True


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        RuntimeError(f"unable to open file <a>: {os.strerror(errno.EMFILE)} (24)"),
    ],
)
def test_too_many_open_files_are_told_whoever_opens_them(malmm, monkeypatch, error):
    def full(*arguments, **options):
        raise error

    monkeypatch.setattr("malmm_cli.cli.app", full)
    done = malmm("doctor")
    assert done.code == 1
    assert done.err.startswith("error: too many open files\n")
