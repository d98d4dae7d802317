"""Files that failed for good: one run reports them, later runs skip them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import FAST, SAMPLE

from malmm_cli import batch, hub
from malmm_cli.batch import ledger, pool, runner, worker
from malmm_cli.errors import CapacityError
from malmm_cli.hub.registry import KNOWN
from malmm_cli.pipeline import answer

LOUD = FAST[:-1]
TINY = Path(hub.__file__).parents[1] / "assets" / "tiny"
RUN = ("batch", "videos", *LOUD, "-o", "out.jsonl")


@pytest.fixture
def videos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("videos").mkdir()
    shutil.copy(SAMPLE, "videos/a.mp4")
    Path("videos/broken.mp4").write_text("not a video")
    return Path("videos")


@pytest.fixture
def no_model(monkeypatch):
    """Call it to have every later load of a model fail the test."""

    def refuse(*_):
        raise AssertionError("a model was loaded")

    return lambda: monkeypatch.setattr(worker, "start", refuse)


def errors():
    items = map(json.loads, Path("out.jsonl").read_text().splitlines())
    return sorted(item["error"]["kind"] for item in items if "error" in item)


def test_a_broken_file_fails_one_run_and_is_skipped_by_the_next(malmm, videos, no_model):
    first = malmm(*RUN)
    assert first.code == 1
    assert "later runs skip files that are broken themselves, unless --retry-failed" in first.err
    assert "run the same command" not in first.err
    no_model()
    for _ in range(2):
        done = malmm(*RUN)
        assert done.code == 0
        assert "nothing left to do, 1 done before: out.jsonl" in done.err
        assert "1 known failure skipped; --retry-failed tries again" in done.err
    assert errors() == ["NotAVideo"]


def test_nothing_left_to_do_needs_no_model(malmm, videos, tmp_path, monkeypatch):
    """The model was downloaded once; then it is removed, and the batch run once more."""
    vicuna = KNOWN["vicuna-7b"]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    storage = tmp_path / "cache" / f"models--{vicuna.repository.replace('/', '--')}"
    shutil.copytree(TINY, storage / "snapshots" / vicuna.revision)
    run = [value.replace("tiny", "vicuna-7b") for value in RUN]
    assert malmm(*run).code == 1
    shutil.rmtree(storage)
    done = malmm(*run, "--offline")
    assert (done.code, "nothing left to do, 1 done before" in done.err) == (0, True), done.err
    shutil.copy(SAMPLE, "videos/new.mp4")
    done = malmm(*run, "--offline")
    assert (done.code, "not fully downloaded" in done.err) == (1, True), done.err


def test_videos_that_are_all_missing_need_no_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pool, "start_apart", None)
    for _ in range(2):
        done = batch.run("-", "out.jsonl", listed=["gone.mp4", "lost.mp4"], offline=True)
        assert (done.failed, done.kinds, done.complete) == (2, {"Missing": 2}, False)
        assert errors() == ["Missing", "Missing"]


def test_results_are_read_for_the_plan_and_once_more_under_the_lock(malmm, videos, monkeypatch):
    malmm(*RUN)
    read, seen = runner.read_lines, []

    def counted(path):
        seen.append(path)
        return read(path)

    monkeypatch.setattr(runner, "read_lines", counted)
    monkeypatch.setattr(ledger, "read_lines", counted)
    assert malmm(*RUN).code == 0
    assert len(seen) == 2
    assert malmm(*RUN, "--dry-run").code == 0
    assert len(seen) == 3


def test_retry_failed_tries_again(malmm, videos):
    assert [malmm(*RUN, *more).code for more in ((), (), ("--retry-failed",), ())] == [1, 0, 1, 0]


def test_a_file_that_was_changed_is_tried_again(malmm, videos):
    malmm(*RUN)
    (videos / "broken.mp4").write_text("still not a video")
    assert malmm(*RUN).code == 1
    shutil.copy(SAMPLE, "videos/broken.mp4")
    assert malmm(*RUN).code == 0
    assert errors() == []


@pytest.mark.parametrize("content", [b"", b"\x00\x00\x00\x18ftypmp42" + bytes(500)])
def test_empty_and_damaged_files_are_known_too(malmm, videos, content):
    (videos / "broken.mp4").write_bytes(content)
    assert [malmm(*RUN).code for _ in range(2)] == [1, 0]


def test_failures_of_the_machine_are_tried_again(malmm, videos, monkeypatch):
    os.unlink("videos/broken.mp4")

    def full(video, **_):
        raise CapacityError(f"{video}: out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(answer, "caption", full)
        assert [malmm(*RUN).code for _ in range(2)] == [1, 1]
    assert malmm(*RUN).code == 0


def test_a_dry_run_counts_known_failures(malmm, videos):
    malmm(*RUN)
    done = malmm(*RUN, "--dry-run")
    assert (done.code, done.out) == (0, "")
    assert "1 known failure skipped" in done.err
    assert "broken.mp4\tfailed before" in malmm(*RUN, "--dry-run", "--retry-failed").out


def test_nothing_to_do_needs_no_torch(malmm, videos):
    malmm(*RUN)
    code = (
        "import sys; from malmm_cli import cli; code = cli.run(sys.argv[1:]);"
        "print(code, *{'torch', 'transformers'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code, *RUN], capture_output=True, text=True)
    assert run.stdout.split() == ["0"], run.stderr


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_link_to_nothing_is_a_broken_file(malmm, videos, no_model):
    link = videos / "link.mp4"
    link.symlink_to("nowhere.mp4")
    first = malmm(*RUN)
    assert first.code == 1
    assert "link.mp4: no such file; it is a link to nowhere.mp4" in first.err
    assert errors() == ["BrokenLink", "NotAVideo"]
    second = malmm(*RUN)
    assert (second.code, "2 known failures skipped" in second.err) == (0, True)
    link.unlink()
    link.symlink_to("elsewhere.mp4")
    assert malmm(*RUN).code == 1
    assert malmm(*RUN).code == 0
    shutil.copy(SAMPLE, videos / "elsewhere.mp4")
    assert malmm(*RUN).code == 0
    assert errors() == ["NotAVideo"]


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_result_whose_link_leads_nowhere_now_is_kept(malmm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLE, "there.mp4")
    Path("a.mp4").symlink_to("there.mp4")
    run = ("batch", "a.mp4", *LOUD, "-o", "out.jsonl")
    assert malmm(*run).code == 0
    before = Path("out.jsonl").read_bytes()
    Path("there.mp4").unlink()
    done = malmm(*run)
    assert (done.code, Path("out.jsonl").read_bytes()) == (1, before)
    assert "earlier result kept" in done.err


def test_a_name_that_is_no_text_is_redone(malmm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("videos").mkdir()
    try:
        shutil.copy(SAMPLE, os.fsencode("videos") + b"/caf\xe9.mp4")
    except OSError:
        pytest.skip("this disk has no such names")
    for frames in ("4", "5"):
        done = malmm("batch", "videos", *LOUD, "--frames", frames, "-o", "out.jsonl")
        assert (done.code, "1 of 1 item done" in done.err) == (0, True), done.err
