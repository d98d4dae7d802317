"""What is known early is told early: in one line and a hint, before torch is imported."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest
from helpers.commands import SAMPLE

import malmm_cli
from malmm_cli import cli
from malmm_cli.cli import bench, cache, models
from malmm_cli.pipeline import loading

ASSETS = Path(malmm_cli.__file__).parent / "assets"
MEMORY = Path(__file__).parents[1] / "golden" / "version-1.malmm"
TINY = ("caption", "clip.mp4", "--model", "tiny")
FOLDER = ("caption", "clip.mp4", "--model")
EVAL = ("eval", "good.jsonl", "--model", "tiny")
TRAIN = ("train", "good.jsonl", "-o", "M", "--model")
REBUILD = "rebuild it: malmm remember VIDEO -o FILE"
MAKE = "make one: malmm remember VIDEO -o FILE"

# arguments, exit code, what the error says, and what the hint says
WRONG = [
    (("ask", "cut.memory", "what?"), 2, "is a damaged memory file: the file is truncated", REBUILD),
    (("ask", "head.memory", "what?"), 2, "is a damaged memory file: the file is tr", REBUILD),
    (("ask", "empty.memory", "what?"), 2, "is a damaged memory file: the file is empty", REBUILD),
    (("ask", "bit.memory", "what?"), 2, "is a damaged memory file: checksum mismatch", REBUILD),
    (("ask", "garbage.memory", "what?"), 2, "is a damaged memory file: not a safeten", REBUILD),
    (("ask", "new.memory", "what?"), 2, "is a memory file of version 9; up to version 3", REBUILD),
    (("ask", "text.memory", "what?"), 2, "error: text.memory: not a memory file", MAKE),
    (("ask", "text.memory", "what?", "--frames", "3"), 2, "text.memory: not a memory file", MAKE),
    (("ask", "model.memory", "what?"), 2, "error: model.memory: not a memory file", MAKE),
    (("caption", "few.memory"), 2, "error: few.memory: not a memory file", MAKE),
    (
        ("ask", "good.memory", "what?", "-m", "vicuna-7b"),
        2,
        "was made with tiny",
        "leave out --model",
    ),
    ((*FOLDER, "./empty"), 1, "empty: config.json is missing", "`malmm models` lists some"),
    ((*FOLDER, "./llava"), 1, "llava: a model of type 'llava' cannot be used", "known type"),
    ((*FOLDER, "./bare"), 1, "weights are missing: model.safetensors", "copy the folder again"),
    (("ask", "clip.mp4", "what?", "-m", "./llava"), 1, "type 'llava'", "known type"),
    (("remember", "clip.mp4", "-o", "x", "-m", "./llava"), 1, "type 'llava'", "known type"),
    ((*FOLDER, "nowhere"), 2, "unknown model 'nowhere'", "known: qwen3-vl-2b, "),
    ((*TINY, "--max-new-tokens", "100000"), 1, "reads 4096 tokens in all", "smaller number"),
    ((*TINY, "--max-new-tokens", "4096"), 1, "--max-new-tokens 4096: the language model", "leave"),
    (("caption", ""), 2, "error: the path of the video is empty", "give a video file"),
    (("ask", "", "what?"), 2, "error: the path of the video is empty", "give a video file"),
    (("frames", ""), 2, "error: the path of the video is empty", "give a video file"),
    (("caption", "clip.mp4/"), 2, "clip.mp4/: no such file", "without the / at its end: clip.mp4"),
    (("caption", "empty/"), 2, "error: empty/: is a folder", "`malmm batch empty/`"),
    (("caption", "pipe.mp4"), 2, "pipe.mp4: not a regular file", "save the video to a file first"),
    (("caption", "http://localhost/a.mp4"), 2, "URLs are not supported", "download the file first"),
    (("caption", "gone.mp4"), 2, "error: gone.mp4: no such file", None),
    (("caption", "cilp.mp4"), 2, "error: cilp.mp4: no such file", "did you mean clip.mp4?"),
    (("ask", "cilp.mp4", "what?"), 2, "error: cilp.mp4: no such file", "did you mean clip.mp4?"),
    (("remember", "cilp.mp4", "-o", "x"), 2, "error: cilp.mp4: no such fi", "mean clip.mp4?"),
    (("frames", "good.memory"), 2, "is a memory file, not a video", "give the video"),
    (("frames", "cilp.mp4"), 2, "error: cilp.mp4: no such file", "did you mean clip.mp4?"),
    (("caption", "emptty/a.mp4"), 2, "error: emptty/a.mp4: no such file", None),
    (("caption", "dlip.mpg"), 2, "error: dlip.mpg: no such file", "did you mean clip.mp4?"),
    (("caption", "a.mp4"), 2, "error: a.mp4: no such file", None),
    (("caption", "*.mkv"), 2, "error: *.mkv: no such file", "`malmm batch` takes patterns"),
    (("eval", "taks.jsonl"), 2, "error: taks.jsonl: no such file", "did you mean tasks.jsonl?"),
    (("eval", "wrold"), 2, "error: wrold: no such file or folder", "did you mean world?"),
    (("eval", "wrold/data.jsonl"), 2, "wrold/data.jsonl: no such file", "mean world/data.jsonl?"),
    (("eval", "empty"), 2, "error: empty: has no data.jsonl", "give a file with one JSON object"),
    (("eval", "no/tasks.jsonl"), 2, "error: no/tasks.jsonl: no such", "one JSON object per line"),
    (("eval", "good.jsonl", "-m", "nowhere"), 2, "unknown model 'nowhere'", "known: qwen3-vl-2b, "),
    (("eval", "good.jsonl", "-m", "./llava"), 1, "llava: a model of type 'llava'", "known type"),
    (("eval", "good.jsonl", "--format-in", "nosuch"), 2, "unknown data set 'nosuch'", "one of lvu"),
    (("eval", "tasks.jsonl"), 2, "error: tasks.jsonl: the file is empty", "one JSON object per l"),
    (("eval", "bad.jsonl"), 2, "bad.jsonl: line 1: not valid JSON", "each line must be a JSON obj"),
    (
        ("eval", "gone.jsonl"),
        2,
        "line 1: video 'gone.mp4' does not exist",
        "relative to gone.jsonl",
    ),
    ((*EVAL, "--choices"), 2, "good.jsonl: no task has 'choices'", "leave --choices out"),
    ((*EVAL, "--max-new-tokens", "4096"), 1, "reads 4096 tokens in all", "smaller number"),
    ((*EVAL, "--predictions", "text.memory"), 2, "is not a predictions file", "--overwrite"),
    ((*EVAL, "--ablate", "--picture", "a.jpg"), 2, "--picture a.jpg: must end in .png", None),
    ((*EVAL, "--ablate", "--variants", "empty"), 2, "empty: contains no folder", "expected names"),
    ((*EVAL, "--variants", "empty"), 2, "--variants goes with --ablate", None),
    ((*TRAIN, "tiny", "--lora", "8"), 2, "--lora 8: not available for training", "leave it out"),
    ((*TRAIN, "qwen3-vl-2b", "--positions", "9"), 2, "--positions 9: not avail", "leave it out"),
    ((*TINY, "--frames"), 2, "'--frames'", "`malmm caption -h`"),
    ((*TINY, "--fames", "3"), 2, "--fames", "`malmm caption -h`"),
    (("caption",), 2, "VIDEO", "`malmm caption -h`"),
    (("caption", "-dash.mp4"), 2, "No such option", "for the file, write ./-dash.mp4"),
    (("cache", "rm", "nosuch", "--cache", "empty"), 2, "nosuch: not in empty", "cache list`"),
    (("cache", "list"), 2, "no cache folder given", "--cache FOLDER"),
    (("--show-completion", "zsh"), 2, "takes no shell, but 'zsh' was given", "run it from the"),
    ((*TINY, "-o", "text.memory"), 2, "text.memory: exists", "--overwrite"),
]


# arguments where no weights are on this disk, whether memory is scarce, and what the error says
ABSENT = [
    (("caption", "clip.mp4", "--offline"), False, "not fully downloaded, and offline mode is on"),
    (("ask", "clip.mp4", "what?", "--offline"), False, "not fully downloaded, and offline"),
    (("remember", "clip.mp4", "-o", "x.memory", "--offline"), False, "not fully downloaded"),
    (("batch", "clip.mp4", "-o", "x.jsonl", "--offline"), False, "not fully downloaded"),
    (("eval", "good.jsonl", "--offline"), False, "not fully downloaded"),
    (("caption", "clip.mp4", "-m", "some/model", "--offline"), True, "not fully downloaded"),
    (("caption", "clip.mp4", "--offline"), True, "needs 15.8 GB of memory, but only 8.0 GB"),
    (("caption", "clip.mp4"), True, "bfloat16 needs 15.8 GB of memory, but only 8.0 GB is free"),
    (("caption", "clip.mp4", "--dtype=float32"), True, "in float32 needs 31.7 GB of memory"),
    (("batch", "clip.mp4", "-o", "x.jsonl", "--offline"), True, "needs 15.8 GB of memory"),
    (("caption", "gone.mp4", "--offline"), True, "gone.mp4: no such file"),
    (("train", "good.jsonl", "-o", "M", "--offline"), False, "not fully downloaded"),
    (("train", "good.jsonl", "-o", "M"), True, "needs 15.8 GB of memory, but only 8.0 GB is free"),
]


@pytest.fixture
def files(tmp_path):
    """A folder with a video, memory files that are damaged, and folders that are not models."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    for name in ("clip.mp4", "-dash.mp4"):
        shutil.copy(SAMPLE, tmp_path / name)
    os.mkfifo(tmp_path / "pipe.mp4")
    raw = MEMORY.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    turned = raw[:-2] + bytes([raw[-2] ^ 1]) + raw[-1:]
    for name, content in {
        "good": raw,
        "cut": raw[:-1000],
        "head": raw[:200],
        "few": raw[:5],
        "empty": b"",
        "bit": turned,
        "garbage": raw[:8] + b"{" + b"\xff" * 20 + raw[29:],
        "new": raw.replace(b"malmm-memory/1", b"malmm-memory/9"),
        "text": b"Dear diary, today I remembered nothing.\n" * 20,
        "model": (2).to_bytes(8, "little") + b"{}",
    }.items():
        (tmp_path / f"{name}.memory").write_bytes(content)
    assert raw[8 : 8 + length].startswith(b"{")
    (tmp_path / "tasks.jsonl").write_bytes(b"")
    (tmp_path / "bad.jsonl").write_text('{"id": 1\n')
    for name, video in (("good", "clip.mp4"), ("gone", "gone.mp4")):
        task = {"id": 1, "video": video, "question": "what?", "answer": "a ball"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(task))
    for name in ("empty", "world"):
        (tmp_path / name).mkdir()
    (tmp_path / "world" / "data.jsonl").write_bytes(b"")
    for name in ("llava", "bare"):
        shutil.copytree(ASSETS / "tiny", tmp_path / name)
    (tmp_path / "llava" / "config.json").write_text('{"model_type": "llava"}')
    (tmp_path / "bare" / "model.safetensors").unlink()
    return tmp_path


@pytest.mark.parametrize(("arguments", "code", "says", "hint"), WRONG)
def test_wrong_use_is_told_before_a_model_is_loaded(
    refused, files, monkeypatch, arguments, code, says, hint
):
    def load(*_, **__):
        raise AssertionError("a model was loaded for nothing")

    monkeypatch.setattr(loading, "load", load)
    told = refused(*arguments, code=code, says=says, hint=hint)
    assert told.count("\n") == (1 if hint is None else 2)


def without_torch(uses, folder, *, fails=True, **environment):
    """What commands print, each of which imports no torch; on stderr alone where it fails."""
    program = (
        "import json, sys\n"
        "from malmm_cli.cli import run\n"
        "for arguments in json.load(sys.stdin):\n"
        "    code = run(arguments)\n"
        f"    assert bool(code) == {fails} and 'torch' not in sys.modules, (arguments, code)\n"
    )
    others = {name: value for name, value in os.environ.items() if not name.startswith("MALMM_")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(uses),
        cwd=folder,
        env=others | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (fails and done.stdout)
    return done.stdout + done.stderr


def test_none_of_them_needs_torch(files):
    told = without_torch([arguments for arguments, *_ in WRONG], files)
    assert told.count("error: ") == len(WRONG)


@pytest.mark.parametrize("scarce", [False, True])
def test_weights_that_are_absent_are_told_of_without_torch(files, scarce):
    """First that a model does not fit this machine, then that it cannot be downloaded."""
    due = [(arguments, says) for arguments, small, says in ABSENT if small == scarce]
    uses = [(*arguments, "--device", "cpu", "-q") for arguments, _ in due]
    memory = {"MALMM_FAKE_MEMORY": "8GB" if scarce else "64GB", "HF_HUB_OFFLINE": "0"}
    told = without_torch(uses, files, HF_HUB_CACHE=str(files / "hub"), **memory)
    errors = [line for line in told.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(due), told
    for error, (_, says) in zip(errors, due, strict=True):
        assert says in error
    assert not (files / "hub").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("caption", "clip.mp4"),
        ("ask", "clip.mp4", "what?"),
        ("eval", "good.jsonl"),
        ("batch", "clip.mp4", "-o", "x.jsonl"),
        ("train", "good.jsonl", "-o", "M"),
    ],
)
def test_a_package_that_is_missing(refused, files, monkeypatch, command):
    def load(*_, **__):
        raise AssertionError("a model was loaded for nothing")

    monkeypatch.setattr(loading, "load", load)
    monkeypatch.setattr("malmm_cli.models.placement.find_spec", lambda name: None)
    run = (*command, "--model", "tiny", "--quantize", "4bit")
    says = "--quantize needs accelerate and bitsandbytes"
    refused(*run, code=2, says=says, hint="pip install 'malmm[quantize]'")


def test_each_of_several_paths_is_told_of_without_torch(files):
    uses = [
        ("caption", "gone.mp4", "clpi.mp4"),
        ("caption", "gone.mp4", "empty"),
        ("caption", "clip.mp4", "gone.mp4", "--offline"),
    ]
    told = without_torch(uses, files, HF_HUB_CACHE=str(files / "hub"), MALMM_FAKE_MEMORY="64GB")
    errors = [line for line in told.splitlines() if line.startswith("error: ")]
    assert [error.split(":")[1].strip() for error in errors] == [
        *("gone.mp4", "clpi.mp4", "gone.mp4", "empty", "gone.mp4", "vicuna-7b")
    ]
    assert "hint: did you mean clip.mp4?" in told


def test_a_missing_video_is_missing_whatever_else_is(malmm, files, monkeypatch):
    monkeypatch.chdir(files)
    monkeypatch.setenv("HF_HUB_CACHE", str(files / "hub"))
    run = ("caption", "clip.mp4", "gone.mp4", "--json", "-q")
    for more, kind in (
        (("-m", "no/where", "--offline"), "NotCached"),
        (("-m", "tiny", "--max-new-tokens=5000"), "CapacityError"),
    ):
        done = malmm(*run, *more)
        assert done.code == 1
        assert [item["error"]["kind"] for item in json.loads(done.out)] == [kind, "Missing"]
        assert done.err.count("gone.mp4: no such file") == 1
    (row, other) = json.loads(malmm("caption", "gone.mp4", "gone.mp4", "--json").out)
    assert row == other


def test_listings_need_no_torch(files):
    uses = [("cache", "list", "--cache", "empty"), ("cache", "rm", "--all", "--cache", "empty")]
    assert without_torch(uses, files, fails=False) == "0 entries, 0 bytes\n"


def test_predictions_made_with_other_settings_are_told_of_without_torch(malmm, files, monkeypatch):
    monkeypatch.chdir(files)
    assert malmm(*EVAL, "--frames", "2", "--max-new-tokens", "1").code == 0
    told = without_torch([(*EVAL, "--frames", "2", "--max-new-tokens", "3", "-q")], files)
    assert told.splitlines() == [
        "error: good.predictions.jsonl: holds predictions with --max-new-tokens 1, not 3",
        "hint: use --overwrite, or choose another file with --predictions",
    ]


def test_a_damaged_memory_file_is_a_failure_of_its_kind(malmm, files, monkeypatch):
    monkeypatch.chdir(files)
    for name, kind in (
        ("cut", "BrokenMemory"),
        ("bit", "BrokenMemory"),
        ("new", "OtherVersion"),
        ("text", "NotAVideo"),
    ):
        done = malmm("ask", f"{name}.memory", "what?", "--json")
        assert (done.code, json.loads(done.out)["error"]["kind"]) == (2, kind)


@pytest.mark.parametrize(
    ("platform", "device"), [("darwin", "cuda"), ("linux", "mps"), ("linux", "cuda:1")]
)
def test_a_device_that_cannot_be_here(refused, files, monkeypatch, platform, device):
    def load(*_, **__):
        raise AssertionError("a model was loaded for nothing")

    def no_driver(name):
        raise OSError(name)

    monkeypatch.setattr(loading, "load", load)
    monkeypatch.setattr("malmm_cli.models.placement.sys", SimpleNamespace(platform=platform))
    monkeypatch.setattr("ctypes.CDLL", no_driver)
    monkeypatch.setattr(
        os.path, "exists", lambda path: os.path.lexists(path) and path[:4] != "/dev"
    )
    says = f"error: device {device!r} is not available"
    refused(*TINY, "--device", device, code=2, says=says, hint="use --device auto or cpu")


# --- numbers


def numbers():
    """Each option of a command that takes a number: words of the command, flag, whether whole."""
    apps = {(): cli.app, ("models",): models.app, ("cache",): cache.app, ("bench",): bench.app}
    for group, app in apps.items():
        for command in app.registered_commands:
            words = (*group, command.name or command.callback.__name__)
            for field, hint in get_type_hints(command.callback, include_extras=True).items():
                kind, *about = get_args(hint) or (hint,)
                kinds = {
                    kind,
                    *get_args(kind),
                    *(k for part in get_args(kind) for k in get_args(part)),
                }
                if about and kinds & {int, float}:
                    flag = "--" + field.replace("_", "-")
                    yield pytest.param(words, flag, int in kinds, id=" ".join((*words, flag)))


@pytest.mark.parametrize(("command", "flag", "whole"), [*numbers()])
def test_every_number_is_refused_in_the_same_words(refused, command, flag, whole):
    told = refused(*command, flag, "abc", code=2, says=f"error: {flag} abc: must be ")
    due = "a whole number" if whole else "a number"
    assert told == f"error: {flag} abc: must be {due}\n"


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--frames=1.5", "--frames 1.5: must be a whole number"),
        ("--frames=", "--frames '': must be a whole number"),
        ("--memory=x", "--memory x: must be a whole number"),
        ("--fps=-1", "--fps -1: must be a number above 0"),
        ("--temperature=nan", "--temperature nan: must be a number above 0"),
        ("--top-p=2", "--top-p 2: must be above 0 and at most 1"),
        ("--beams=0", "--beams 0: must be at least 1"),
        ("--cache-size=-1", "--cache-size -1: must be at least 0"),
        ("--cache-size=nan", "--cache-size nan: must be at least 0"),
        ("--seed=" + "9" * 5000, "--seed " + "9" * 40 + "…: must be a whole number"),
    ],
)
def test_numbers_that_are_not_allowed(refused, files, option, says):
    refused(*TINY, option, code=2, says=f"error: {says}")


def test_a_prompt_for_questions_without_any(refused, tmp_path):
    run = ("batch", SAMPLE, "-o", tmp_path / "x.jsonl", "--model", "tiny", "--prompt", "Q: {}")
    refused(*run, code=2, says="has {}, but a caption has no question to put there")
    assert not list(tmp_path.iterdir())


def test_a_number_from_the_environment_is_named_so(refused, files, monkeypatch):
    monkeypatch.setenv("MALMM_CACHE_SIZE", "abc")
    refused(*TINY, code=2, says="error: MALMM_CACHE_SIZE abc: must be a number")


# --- quiet


def test_quiet_keeps_warnings_and_hides_notes(malmm, tmp_path):
    content = bytearray(SAMPLE.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = bytes(20_000)
    video = tmp_path / "damaged.mp4"
    video.write_bytes(content)
    run = ("caption", video, "--model", "tiny", "--frames", "40", "--max-new-tokens", "2")
    loud = malmm(*run).err.splitlines()
    (quiet,) = malmm(*run, "-q").err.splitlines()
    assert quiet.startswith(f"warning: {video}: damaged")
    assert quiet in loud
    assert len(loud) > 1


def test_a_data_file_in_a_folder_that_may_not_be_entered(refused, monkeypatch, tmp_path):
    """As for anyone but root, who may enter all of them."""
    ask = os.lstat

    def lstat(path, **how):
        if str(path).startswith(str(tmp_path / "secret")):
            raise PermissionError(13, "Permission denied", str(path))
        return ask(path, **how)

    monkeypatch.setattr(os, "lstat", lstat)
    path = tmp_path / "secret" / "data.jsonl"
    refused("eval", path, code=2, says=f"error: {path}: permission denied", hint="permissions")
