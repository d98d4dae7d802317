"""METEOR by its own Java program: its value, and every way in which Java can be of no use."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from malmm_cli.errors import UsageError
from malmm_cli.evaluate import meteor as module
from malmm_cli.evaluate.meteor import meteor

CAPTIONS = json.loads((Path(__file__).parents[1] / "golden" / "captions.json").read_text("utf-8"))
TEXTS = ["a red circle moves left", "who knows"]
REFERENCES = [["a red circle moves", "it moves left"], ["a blue star spins"]]

posix = pytest.mark.skipif(os.name != "posix", reason="the false Java is a shell script")


@pytest.fixture
def java(tmp_path, monkeypatch):
    """Puts a script in Java's place; returns the file in which it may tell its processes."""

    def put(script):
        path = tmp_path / "bin" / "java"
        path.parent.mkdir()
        path.write_text(script.format(told=tmp_path / "told"))
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
        return tmp_path / "told"

    return put


def is_alive(number):
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_nothing_is_left(told):
    numbers = [int(number) for number in told.read_text().split()]
    assert len(numbers) == 2
    end = time.monotonic() + 30
    while any(map(is_alive, numbers)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(is_alive, numbers))


@pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java")
def test_meteor_is_that_of_the_original_tools(monkeypatch, recwarn):
    """The value: pycocoevalcap 1.2's PTBTokenizer and Meteor on the same captions."""
    monkeypatch.setattr(module, "START", 3600.0)
    texts = [caption["text"] for caption in CAPTIONS["captions"]]
    references = [caption["references"] for caption in CAPTIONS["captions"]]
    assert meteor(texts, references) == pytest.approx(0.4419186069322089, abs=1e-9)
    assert not recwarn.list
    assert not [child for child in psutil.Process().children() if "java" in child.name()]


def test_without_java_that_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"^java not found$") as caught:
        meteor(TEXTS, REFERENCES)
    assert caught.value.hint == "install Java 8 or newer"


def test_without_the_extra_its_name_is_told(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="pycocoevalcap is not installed") as caught:
        meteor(TEXTS, REFERENCES)
    assert caught.value.hint == "pip install 'malmm[eval]'"


@posix
@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("#!/bin/sh\nexit 3", "java failed: no score returned"),
        (
            "#!/bin/sh\necho Unsupported class >&2; echo '\033[31mversion' >&2; exit 1",
            "java failed: Unsupported class [31mversion",
        ),
        ("#!/bin/sh\nexec yes hello", "java failed: no score returned"),
        ("#!/bin/sh\nexec yes nan", "java failed: no score returned"),
        ("#!/bin/sh\nexec yes 7", "java failed: no score returned"),
        ("#!/bin/sh\nread line; echo 1; exit", "java failed: no score returned"),
    ],
)
def test_a_java_that_fails_is_told_in_one_sentence(java, script, says, capfd):
    java(script)
    with pytest.raises(UsageError) as caught:
        meteor(TEXTS, REFERENCES)
    assert caught.value.message == says
    assert capfd.readouterr() == ("", "")


@posix
def test_a_java_that_is_no_program_is_told_in_one_sentence(java, monkeypatch, tmp_path, capfd):
    java("no program")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UsageError, match=r"^java cannot be run: Exec format error$"):
        meteor(TEXTS, REFERENCES)
    assert capfd.readouterr() == ("", "")


HANGING = "#!/bin/sh\nsleep 1000 &\necho $$ $! > {told}.part; mv {told}.part {told}\n{then}\nwait"


@posix
@pytest.mark.parametrize("then", ["", "yes >&2"])
def test_a_java_that_hangs_is_given_up_and_killed(java, monkeypatch, then):
    monkeypatch.setattr(module, "START", 5.0)
    told = java(HANGING.replace("{then}", then))
    with pytest.raises(UsageError, match=r"^java timed out after 5 s$"):
        meteor(TEXTS, REFERENCES)
    assert_nothing_is_left(told)


@posix
def test_ctrl_c_leaves_no_java(java):
    told = java(HANGING.replace("{then}", ""))

    def interrupt():
        while not told.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        meteor(TEXTS, REFERENCES)
    assert_nothing_is_left(told)


@posix
def test_no_java_outlives_a_malmm_that_is_killed(java):
    told = java(HANGING.replace("{then}", ""))
    code = f"from malmm_cli.evaluate.meteor import meteor; meteor({TEXTS}, {REFERENCES})"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        while not told.exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    assert_nothing_is_left(told)
