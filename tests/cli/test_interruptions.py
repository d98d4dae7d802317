"""Real processes that are interrupted, or whose readers go away, end cleanly with what is done.

The child interrupts itself, at a point that no clock could hit.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys

import psutil
import pytest
from helpers.commands import FAST, SAMPLE

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and pipes are POSIX's")

# A shell may have started us with SIGINT ignored, which children inherit.
START = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupt = lambda: os.kill(os.getpid(), signal.SIGINT)
{setup}
from malmm_cli.__main__ import main
main()
"""

WHILE_DECODING = """
from malmm_cli import media
read = media.read
def read_some(*arguments):
    for number, frame in enumerate(read(*arguments)):
        number == 2 and interrupt()
        yield frame
media.read = read_some
"""

WHILE_GENERATING = """
from transformers import LlamaModel
forward, steps = LlamaModel.forward, []
def forward_for_a_while(*arguments, **options):
    steps.append(1)
    len(steps) == 5 and interrupt()
    return forward(*arguments, **options)
LlamaModel.forward = forward_for_a_while
"""

AFTER_THE_FIRST = """
from malmm_cli.batch.ledger import Ledger
add = Ledger.add
def add_and_interrupt(*arguments):
    add(*arguments)
    interrupt()
Ledger.add = add_and_interrupt
"""


def start(setup, *arguments, folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE):
    code = START.format(setup=setup)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        stdout=stdout,
        stderr=stderr,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("setup", [WHILE_DECODING, WHILE_GENERATING])
def test_ctrl_c(tmp_path, setup):
    long = ["--frames=16", "--max-new-tokens=900", "-o", "out.json"]
    done = start(setup, "caption", SAMPLE, *FAST, *long, folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
    assert not list(tmp_path.iterdir())


def test_ctrl_c_while_leaving_ends_at_once(tmp_path):
    setup = "import atexit; atexit.register(interrupt)"
    done = start(setup, "--version", folder=tmp_path)
    assert done.stdout.startswith("malmm ")
    assert (done.returncode, done.stderr) == (-signal.SIGINT, ""), "a shell has 130 for it"


def test_ctrl_c_keeps_what_is_done(tmp_path):
    (tmp_path / "a.mp4").symlink_to(SAMPLE)
    (tmp_path / "b.mp4").symlink_to(SAMPLE)
    done = start(AFTER_THE_FIRST, "batch", ".", *FAST, "-o", "out.jsonl", folder=tmp_path)
    told = "finished items are in out.jsonl; run the same command to resume\ninterrupted\n"
    assert (done.returncode, done.stdout, done.stderr) == (130, "", told)
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    assert json.loads(line)["video"] == "a.mp4"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["a.mp4", "b.mp4", "out.jsonl", "out.lock", "out.sqlite"]


@pytest.fixture
def unread():
    """The end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["models"], ["frames", SAMPLE, "-q"]]
)
def test_a_reader_of_stdout_that_went_away(tmp_path, unread, arguments):
    done = start("", *arguments, folder=tmp_path, stdout=unread)
    assert (done.returncode, done.stderr) == (0, "")


def test_stdout_that_never_was(tmp_path):
    setup = "import sys; sys.stdout = None"  # what Python does with `>&-`
    done = start(setup, "frames", SAMPLE, "-q", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_of_stderr_that_went_away(tmp_path, unread):
    done = start("", "frames", SAMPLE, "--frames=2", folder=tmp_path, stderr=unread)
    assert (done.returncode, done.stdout) == (0, "0.000\n59.950\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_behind_stdout(tmp_path):
    with open("/dev/full", "w") as full:
        done = start("", "frames", SAMPLE, "-q", folder=tmp_path, stdout=full)
    assert done.returncode == 1
    assert done.stderr == "error: cannot write the result: No space left on device\n"


TERMINATED = AFTER_THE_FIRST.replace("interrupt()", "os.kill(os.getpid(), signal.SIGTERM)")


def test_sigterm_keeps_what_is_done(tmp_path):
    (tmp_path / "a.mp4").symlink_to(SAMPLE)
    (tmp_path / "b.mp4").symlink_to(SAMPLE)
    done = start(TERMINATED, "batch", ".", *FAST, "-o", "out.jsonl", folder=tmp_path)
    told = "finished items are in out.jsonl; run the same command to resume\nterminated\n"
    assert (done.returncode, done.stdout, done.stderr) == (143, "", told)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1
    with sqlite3.connect(tmp_path / "out.sqlite") as base:
        assert base.execute("SELECT ended IS NULL FROM run").fetchall() == [(0,)]


def left_over(folder):
    """Processes that work in a folder."""
    return [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(folder)]


# The second signal used to break off what ends the workers; they were then waited for, for ever.
WHILE_STOPPING = """
from malmm_cli.batch import pool
kill_tree = pool.kill_tree
def interrupt_and_kill(process):
    interrupt()
    kill_tree(process)
pool.kill_tree = interrupt_and_kill
"""

WHILE_CLOSING = """
from malmm_cli.batch.ledger import Ledger
close = Ledger.close
def interrupt_and_close(ledger):
    interrupt()
    close(ledger)
Ledger.close = interrupt_and_close
"""


@pytest.fixture
def two(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).symlink_to(SAMPLE)
    return tmp_path


@pytest.mark.parametrize("again", ["interrupt(); interrupt()", WHILE_STOPPING, WHILE_CLOSING])
def test_ctrl_c_again_and_again(two, again):
    setup = AFTER_THE_FIRST + (again if "def" in again else "")
    setup = setup if "def" in again else setup.replace("    interrupt()", f"    {again}")
    done = start(setup, "batch", ".", *FAST, "-o", "out.jsonl", folder=two)
    told = "finished items are in out.jsonl; run the same command to resume\ninterrupted\n"
    assert (done.returncode, done.stderr) == (130, told)
    assert len((two / "out.jsonl").read_text().splitlines()) == 1
    assert not left_over(two)


def test_ctrl_c_when_all_is_done_keeps_it(two):
    done = start(WHILE_CLOSING, "batch", ".", *FAST, "-o", "out.jsonl", folder=two)
    assert done.returncode == 130
    assert len((two / "out.jsonl").read_text().splitlines()) == 2


WHILE_WRITING = """
from malmm_cli.cli import running
encoded = running.encoded
def interrupt_and_encode(text):
    interrupt()
    return encoded(text)
running.encoded = interrupt_and_encode
"""


def test_ctrl_c_while_results_are_written_keeps_them(two):
    done = start(WHILE_WRITING, "caption", "a.mp4", *FAST, "-o", "out.json", folder=two)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    assert json.loads((two / "out.json").read_text())["video"] == "a.mp4"


# A library that cannot be interrupted turns Ctrl-C into an error of its own, or forgets it.
AS_AN_ERROR = """
from malmm_cli.pipeline import loading
def load(*_, **__):
    try:
        interrupt()
    except KeyboardInterrupt:
        raise ImportError("half loaded") from None
loading.load = load
"""
IN_A_DESTRUCTOR = """
from malmm_cli.pipeline import loading
class Gone:
    def __del__(self):
        interrupt()
def load(*_, **__):
    Gone()
    while True:
        pass
loading.load = load
"""


@pytest.mark.parametrize("setup", [AS_AN_ERROR, IN_A_DESTRUCTOR])
def test_ctrl_c_that_something_takes(tmp_path, setup):
    done = start(setup, "caption", SAMPLE, *FAST, folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


HANGS = """
import subprocess, time
from malmm_cli.processes import interrupts
from malmm_cli.pipeline import loading
interrupts.DEADLINE = 1.0
def load(*_, **__):
    subprocess.Popen(["sleep", "600"])
    try:
        interrupt()
    finally:
        while True:
            time.sleep(1)
loading.load = load
"""


def test_cleaning_up_that_hangs_is_given_up(tmp_path):
    done = start(HANGS, "caption", SAMPLE, *FAST, folder=tmp_path)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "ended without waiting any longer\n"
    assert not left_over(tmp_path)


def test_ctrl_c_later_ends_at_once(tmp_path):
    setup = HANGS.replace("DEADLINE = 1.0", "PRESS = 0.5").replace(
        "sleep(1)", "sleep(1); interrupt()"
    )
    done = start(setup, "caption", SAMPLE, *FAST, folder=tmp_path)
    assert (done.returncode, done.stderr) == (130, "ended without waiting any longer\n")


NEVER_ENDS = """
import threading
threading.Thread(target=threading.Event().wait).start()
"""


def test_leaving_waits_for_no_thread(tmp_path):
    done = start(NEVER_ENDS, "--version", folder=tmp_path)
    assert done.stdout.startswith("malmm ")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "code", "told"), [("SIGTERM", 143, "terminated\n"), ("SIGHUP", 129, "hung up\n")]
)
def test_other_signals_again_and_again(tmp_path, name, code, told):
    end = f"interrupt = lambda: [os.kill(os.getpid(), signal.{name}) for _ in range(3)]"
    done = start(f"{end}\n{WHILE_DECODING}", "caption", SAMPLE, *FAST, folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", told)


def test_signals_that_were_ignored_stay_ignored(tmp_path):
    setup = f"signal.signal(signal.SIGINT, signal.SIG_IGN)\n{WHILE_DECODING}"
    done = start(setup, "frames", SAMPLE, "-q", "--frames=4", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
