"""Standard streams that are closed, full or may not block: results arrive where they can."""

import json
import os
import subprocess
import sys

import pytest
from helpers.commands import FAST, SAMPLE
from helpers.media_files import write_video

pytestmark = pytest.mark.skipif(os.name != "posix", reason="descriptors are POSIX's")

MALMM = [sys.executable, "-m", "malmm_cli"]
FILLED = """
import os, subprocess, sys
from malmm_cli.processes.standard_streams import fill_streams
kept = os.dup(2)
for number in {closed}:
    os.close(number)
fill_streams()
other = os.pipe()
assert min(other) > 2, "a pipe where a stream belongs"
look = "import os; [os.fstat(n) for n in range(3)]"
sys.exit(subprocess.run([sys.executable, "-c", look], stderr=kept).returncode)
"""


def environment(**more):
    path = os.pathsep.join(sys.path)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def run(*arguments, folder, closed="", **options):
    """Run malmm, with streams closed as a shell does it."""
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    return subprocess.run(
        [*shell, *MALMM, *map(str, arguments)],
        cwd=folder,
        text=True,
        check=False,
        timeout=300,
        **{"env": environment(), "capture_output": True} | options,
    )


@pytest.mark.parametrize("closed", [(0,), (1,), (0, 1, 2), (0, 2)])
def test_what_is_opened_in_their_place_is_there_for_children(closed):
    code = FILLED.format(closed=closed)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_results_arrive_though_streams_are_closed(tmp_path, closed):
    options = (*FAST[:-1], "--beams", "1", "--format", "json", "-o", "out.json")
    done = run("caption", SAMPLE, *options, folder=tmp_path, closed=closed)
    assert (done.returncode, done.stdout) == (0, "")
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "out.json").read_text())["text"]


def test_a_batch_with_all_streams_closed(tmp_path):
    write_video(tmp_path / "a.mp4", 4)
    done = run("batch", ".", "-o", "out.jsonl", *FAST[:-1], folder=tmp_path, closed="<&- >&- 2>&-")
    assert done.returncode == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["text"]


@pytest.mark.parametrize(
    ("arguments", "closed", "code", "out", "err"),
    [
        (["--version"], ">&-", 0, "", ""),
        (["--help"], ">&- 2>&-", 0, "", ""),
        (["models"], "<&- >&-", 0, "", ""),
        (["frames", "none.mp4"], "2>&-", 2, "", ""),
        (["frames", SAMPLE, "--frames=2", "--json", "-q"], ">&-", 0, "", ""),
        (["frames", SAMPLE, "--frames=2"], "2>&-", 0, "0.000\n59.950\n", ""),
    ],
)
def test_every_command_with_closed_streams(tmp_path, arguments, closed, code, out, err):
    done = run(*arguments, folder=tmp_path, closed=closed)
    assert (done.returncode, done.stdout, done.stderr) == (code, out, err)


def test_a_list_on_a_stdin_that_is_closed(tmp_path):
    done = run("batch", "-", "-o", "out.jsonl", *FAST, folder=tmp_path, closed="<&-")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no videos in -\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["models", "info", "tiny"]])
def test_a_full_disk_behind_any_output(tmp_path, arguments):
    with open("/dev/full", "w") as full:
        done = run(*arguments, folder=tmp_path, capture_output=False, stdout=full, stderr=-1)
    told = "error: cannot write the result: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, told)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_behind_stderr(tmp_path):
    with open("/dev/full", "w") as full:
        options = {"capture_output": False, "stdout": -1, "stderr": full}
        done = run("frames", SAMPLE, "--frames=2", folder=tmp_path, **options)
    assert (done.returncode, done.stdout) == (0, "0.000\n59.950\n")


def test_streams_that_may_not_block(tmp_path):
    """Of both ends: a list that comes late, and more results than a pipe holds."""
    list_out, list_in = os.pipe()
    reader, writer = os.pipe()
    for end in (list_out, writer):
        os.set_blocking(end, False)
    os.write(writer, b"x" * 65000)  # next to no room in what follows
    command = [*MALMM, "frames", str(SAMPLE), "--frames=1200", "--json", "-q"]
    told = subprocess.Popen(command, env=environment(), stdout=writer)
    os.close(writer)
    batch = [*MALMM, "batch", "-", "-o", "out.jsonl", *FAST]
    listed = subprocess.Popen(batch, cwd=tmp_path, env=environment(), stdin=list_out)
    with pytest.raises(subprocess.TimeoutExpired):
        listed.wait(2)
    os.write(list_in, os.fsencode(f"{SAMPLE}\n"))
    os.close(list_in)
    data = b""
    while piece := os.read(reader, 65536):
        data += piece
    assert (told.wait(), listed.wait()) == (0, 0)
    assert len(json.loads(data.lstrip(b"x"))["frames"]) == 1200
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1
    os.close(reader)
    os.close(list_out)


def test_names_in_a_list_are_names_whatever_python_thinks_of_stdin(tmp_path):
    (tmp_path / "é.mp4").symlink_to(SAMPLE)
    ascii_only = environment(PYTHONIOENCODING="ascii")
    options = ("-o", "out.jsonl", *FAST)
    done = run("batch", "-", *options, folder=tmp_path, input="é.mp4\n", env=ascii_only)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "out.jsonl").read_text())["video"] == "é.mp4"
