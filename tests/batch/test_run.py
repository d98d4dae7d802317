"""Many videos in one run: which they are, what becomes of each, what is written and when."""

import io
import json
import os
import sqlite3
from pathlib import Path

import pytest
from helpers.commands import FAST, SAMPLE
from helpers.events import Recorded
from helpers.media_files import write_video

import malmm_cli
from malmm_cli.batch.inputs import find_tasks, find_videos
from malmm_cli.batch.job import attempt
from malmm_cli.batch.plan import plan
from malmm_cli.checkpoints.layout import deciding
from malmm_cli.errors import MalmmError, UsageError
from malmm_cli.files.fingerprint import folder_identity
from malmm_cli.models.instructblip.defaults import ASK, CAPTION
from malmm_cli.pipeline import answer
from malmm_cli.types import Task

LOUD = FAST[:-1]


@pytest.fixture
def folder(tmp_path, clip, monkeypatch):
    """Two videos at different depths, one broken, and files that are none."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "deep/er/B.MKV"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).write_bytes(clip.read_bytes())
    (tmp_path / "videos" / "deep" / "broken.mp4").write_text("not a video")
    (tmp_path / "videos" / "notes.txt").write_text("not a video")
    (tmp_path / "videos" / ".hidden.mp4").write_text("not a video")
    (tmp_path / "videos" / "folder.mp4").mkdir()
    return tmp_path / "videos"


@pytest.fixture
def looked_at(monkeypatch):
    """The videos that were captioned or asked about."""
    seen = []
    for name in ("caption", "ask"):
        original = getattr(answer, name)

        def noted(video, *arguments, original=original, **options):
            seen.append(str(video))
            return original(video, *arguments, **options)

        monkeypatch.setattr(answer, name, noted)
    return seen


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def table(path, question):
    with sqlite3.connect(path) as base:
        return base.execute(question).fetchall()


# --- inputs


def test_a_folder_with_all_below_it(malmm, folder, tmp_path):
    done = malmm("batch", "videos", *LOUD, "-o", "out.jsonl")
    assert done.code == 1
    assert done.out == ""
    assert "2 of 3 items done, 1 failed: out.jsonl" in done.err
    assert f"error: {os.path.join('videos', 'deep', 'broken.mp4')}: not a video" in done.err
    items = lines(tmp_path / "out.jsonl")
    names = ["a.mp4", "deep/broken.mp4", "deep/er/B.MKV"]
    assert [item["video"] for item in items] == [os.path.join("videos", name) for name in names]
    assert ["error" in item for item in items] == [False, True, False]
    assert items[1]["error"]["kind"] == "NotAVideo"
    assert items[0]["text"] == items[2]["text"]


def test_a_batch_without_failures(malmm, folder):
    done = malmm("batch", "videos/a.mp4", "videos/deep/er", *FAST, "-o", "out.jsonl")
    assert (done.code, done.out) == (0, "")
    assert all("unlike the drawn videos" in line for line in done.err.splitlines())


def test_the_captions_are_those_of_caption(malmm, folder, tmp_path):
    malmm("batch", "videos/a.mp4", SAMPLE, *FAST, "-o", "out.jsonl")
    alone = malmm("caption", "videos/a.mp4", SAMPLE, *FAST, "--format", "jsonl").out.splitlines()
    for one, other in zip(lines(tmp_path / "out.jsonl"), map(json.loads, alone), strict=True):
        assert one.pop("seconds").keys() == other.pop("seconds").keys()
        assert {one.pop(key) is None for key in ("id", "identity", "settings")} == {False}
        assert one == other


def test_a_list_on_stdin(malmm, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("videos/a.mp4\n\nnope.mp4\r\nvideos/a.mp4\n"))
    done = malmm("batch", "-", *FAST, "-o", "out.jsonl")
    assert done.code == 1
    assert [item["video"] for item in lines(tmp_path / "out.jsonl")] == ["videos/a.mp4", "nope.mp4"]


def test_each_file_once_in_the_order_first_named(folder):
    found = find_videos(["videos/deep", "-", "videos"], ["videos/a.mp4\n", "x y.mp4"])
    assert found == [
        *(
            os.path.join("videos/deep", name)
            for name in ("broken.mp4", os.path.join("er", "B.MKV"))
        ),
        *("videos/a.mp4", "x y.mp4"),
    ]
    with pytest.raises(UsageError, match="no videos"):
        find_videos(["-"], ["\n"])


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("videos/*.mp4", ["videos/a.mp4"]),
        ("videos/*", ["videos/a.mp4"]),
        ("videos/**", ["videos/a.mp4", "videos/deep/broken.mp4", "videos/deep/er/B.MKV"]),
        ("videos/**/*.MKV", ["videos/deep/er/B.MKV"]),
        ("videos/*.txt", ["videos/notes.txt"]),
        ("[a].mp4", ["[a].mp4"]),
    ],
)
def test_patterns_are_resolved_by_the_tool(folder, tmp_path, pattern, found):
    (tmp_path / "[a].mp4").write_text("a file of that very name")
    assert find_videos([pattern], ()) == found


def test_links_to_folders_are_not_followed(folder, tmp_path):
    for name in ("self", "two"):
        (tmp_path / "videos" / name).symlink_to(".")
    events = Recorded()
    assert find_videos(["videos"], (), events) == find_videos(["videos/**"], ())
    assert [line.split(":")[0] for line in events.warnings] == [
        os.path.join("videos", n) for n in ("self", "two")
    ]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_told(folder):
    os.chmod("videos/deep", 0)
    events = Recorded()
    assert find_videos(["videos"], (), events) == ["videos/a.mp4"]
    assert events.warnings == ["videos/deep: cannot be read: Permission denied"]


def test_what_never_was_tried_comes_before_what_failed(malmm, folder, tmp_path):
    run = (
        "batch",
        "videos/deep/broken.mp4",
        "videos/a.mp4",
        *LOUD,
        "-o",
        "out.jsonl",
        "--limit",
        "1",
        "--retry-failed",
    )
    assert [malmm(*run).code for _ in range(3)] == [1, 0, 1]
    assert sorted("error" in item for item in lines(tmp_path / "out.jsonl")) == [False, True]


def test_the_output_is_no_input(refused, folder, tmp_path):
    (tmp_path / "tasks.jsonl").write_text('{"id": "1", "video": "videos/a.mp4"}\n')
    run = ("batch", "tasks.jsonl", *FAST, "-o", "tasks.jsonl", "--overwrite")
    refused(*run, code=2, says="is the input file")
    assert (tmp_path / "tasks.jsonl").read_text().startswith('{"id"')


def test_one_file_by_two_names_is_one_item(folder, tmp_path):
    tasks = find_tasks(["videos/a.mp4", "./videos/a.mp4"], (), (), tmp_path)
    assert [(task.id, task.video) for task in tasks] == [("videos/a.mp4", "videos/a.mp4")]


def test_questions_of_one_video_share_its_frames(malmm, folder, tmp_path, looked_at):
    asked = ["--ask", "what moves?", "--ask", "where?"]
    done = malmm("batch", "videos/a.mp4", *asked, *LOUD, "-o", "out.jsonl")
    assert done.code == 0
    assert "2 of 2 items done" in done.err
    items = lines(tmp_path / "out.jsonl")
    assert [(item["task"], item["question"]) for item in items] == [
        ("ask", "what moves?"),
        ("ask", "where?"),
    ]
    assert looked_at == ["videos/a.mp4"]
    assert items[0]["prompt"] == "Question: what moves? Short answer:"


def test_a_file_of_tasks(malmm, folder, tmp_path):
    tasks = [
        {"id": "one", "video": "a.mp4", "question": "what moves?", "answer": "a square"},
        {"id": "two", "video": "a.mp4", "from": 1, "to": 1.5},
        {"id": "three", "video": "gone.mp4", "prompt": "a video of"},
    ]
    (folder / "tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))
    done = malmm("batch", "videos/tasks.jsonl", *FAST, "-o", "out.jsonl")
    assert done.code == 1
    items = {item["id"]: item for item in lines(tmp_path / "out.jsonl")}
    assert list(items) == ["one", "two", "three"]
    assert items["one"]["question"] == "what moves?"
    assert items["two"]["segments"][0]["start"] == 1
    assert items["three"]["error"]["kind"] == "Missing"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["videos", "-o", "out.json"], "must be a .jsonl, .csv or .tsv file, or a folder"),
        (["videos", "-o", "-"], "must be a .jsonl, .csv or .tsv file, or a folder"),
        (["videos"], "-o"),
        (["empty", "-o", "out.jsonl"], "no videos in empty"),
        (["nothing/*.mp4", "-o", "out.jsonl"], "nothing/*.mp4: no video matches this pattern"),
        (["videos", "-o", "out.jsonl", "--frames=0"], "--frames 0"),
        (["videos", "-o", "out.jsonl", "--format=srt"], "out.jsonl holds JSON Lines"),
        (["videos", "-o", "out/", "--format=doc"], "unknown format 'doc'"),
        (["videos", "-o", "no/out.jsonl"], "no such folder: no"),
        (["videos", "-o", "out.jsonl", "--ask", " "], "a question is empty"),
        (["t.jsonl", "-o", "out.jsonl", "--ask", "what?"], "--ask applies to videos"),
        (["t.jsonl", "u.jsonl", "-o", "out.jsonl"], "the id '1' is already used"),
        (["videos", "-o", "strange.jsonl"], "strange.jsonl: line 1 is not a malmm batch result"),
        (["videos", "-o", "out.jsonl", "--workers=0"], "--workers 0: must be at least 1"),
    ],
)
def test_wrong_use(refused, folder, tmp_path, arguments, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "strange.jsonl").write_text('{"my": "own"}\n')
    for name in ("t.jsonl", "u.jsonl"):
        (tmp_path / name).write_text('{"id": 1, "video": "videos/a.mp4"}')
    refused("batch", *arguments, "-q", "--model", "tiny", code=2, says=says)


# --- what is done again


def test_a_rerun_does_what_is_missing_and_what_failed(malmm, folder, tmp_path, looked_at, clip):
    malmm("batch", "videos", *FAST, "-o", "out.jsonl")
    before = (tmp_path / "out.jsonl").read_text().splitlines()
    looked_at.clear()
    (folder / "deep" / "broken.mp4").write_bytes(clip.read_bytes())
    done = malmm("batch", "videos", *LOUD, "-o", "out.jsonl")
    assert done.code == 0
    assert "1 of 1 item done, 2 done before" in done.err
    assert looked_at == ["videos/deep/broken.mp4"]
    after = (tmp_path / "out.jsonl").read_text().splitlines()
    assert after[:2] == [before[0], before[2]]
    assert len(after) == 3
    looked_at.clear()
    assert (
        "nothing left to do, 3 done before"
        in malmm("batch", "videos", *LOUD, "-o", "out.jsonl").err
    )
    assert looked_at == []


@pytest.mark.parametrize(
    "changes",
    [
        ("--frames", "3"),
        ("--memory", "3"),
        ("--prompt", "a video of"),
        ("--beams", "3"),
        ("--seed", "1"),
        ("--policy", "fifo"),
        ("--to", "1"),
        ("--dtype", "float32"),
        ("--model", "other"),
    ],
)
def test_other_settings_are_other_results(malmm, folder, tmp_path, looked_at, changes, t5_folder):
    (tmp_path / "other").symlink_to(t5_folder)
    command = ("batch", "videos/a.mp4", *LOUD, "-o", "out.jsonl")
    malmm(*command)
    (first,) = (tmp_path / "out.jsonl").read_text().splitlines()
    done = malmm(*command, *changes)
    assert "results of other settings in out.jsonl, redone: 1" in done.err
    assert len(looked_at) == 2
    (second,) = lines(tmp_path / "out.jsonl")
    assert second["settings"] != json.loads(first)["settings"]
    ((kept,),) = table(tmp_path / "out.sqlite", "SELECT line FROM replaced")
    assert kept.rstrip() == first, "what leaves the output is kept in the state"


def test_results_of_older_versions_are_those_of_the_same_settings():
    about = {"model": "tiny", "revision": "r", "dtype": "auto", "quantize": None}
    tasks = [Task("a", "a.mp4"), Task("b", "a.mp4", "who?")]
    digests = [item.digest for item in plan(tasks, CAPTION, ASK, about)]
    assert digests == ["157bf7785b482553", "92c168eaba81e65a"]
    tiny = Path(malmm_cli.__file__).with_name("assets") / "tiny"
    before = ("*.safetensors", "*.json", "qformer_tokenizer/*", "tokenizer.model", "spiece.model")
    assert folder_identity(tiny, deciding(tiny)) == folder_identity(tiny, before)


def test_another_file_of_the_same_name_is_another_item(malmm, folder, tmp_path, looked_at):
    command = ("batch", "videos/a.mp4", *LOUD, "-o", "out.jsonl")
    malmm(*command)
    write_video(folder / "a.mp4", 7)
    done = malmm(*command)
    assert "results of another file in out.jsonl, redone: 1" in done.err
    (item,) = lines(tmp_path / "out.jsonl")
    assert item["frames"]["duration"] == 0.28


def test_a_file_touched_is_another_one_unless_all_of_it_is_read(malmm, folder, looked_at):
    for options, times in (((), 2), (("--full-hash",), 1)):
        looked_at.clear()
        command = ("batch", "videos/a.mp4", *FAST, "-o", f"{times}.jsonl", *options)
        malmm(*command)
        os.utime(folder / "a.mp4", (times, times))
        malmm(*command)
        assert len(looked_at) == times


def test_the_result_of_a_video_that_is_gone_is_kept(malmm, folder, tmp_path):
    command = ("batch", "videos/a.mp4", *FAST, "-o", "out.jsonl")
    malmm(*command)
    before = (tmp_path / "out.jsonl").read_bytes()
    (folder / "a.mp4").unlink()
    done = malmm(*command)
    assert done.code == 1
    assert done.err == "error: videos/a.mp4: no such file; earlier result kept\n"
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_results_of_other_videos_are_kept(malmm, folder, tmp_path):
    malmm("batch", "videos/a.mp4", *FAST, "-o", "out.jsonl")
    done = malmm("batch", "videos/deep/er", *LOUD, "-o", "out.jsonl")
    assert "results of other items in out.jsonl, kept: 1" in done.err
    assert len(lines(tmp_path / "out.jsonl")) == 2
    assert table(tmp_path / "out.sqlite", "SELECT id, status FROM item ORDER BY id") == [
        ("videos/a.mp4", "done"),
        ("videos/deep/er/B.MKV", "done"),
    ]


def test_both_moved_together_are_found_again(malmm, folder, tmp_path, monkeypatch, looked_at):
    malmm("batch", "videos/a.mp4", *FAST, "-o", "videos/out.jsonl")
    folder.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    malmm("batch", "a.mp4", *FAST, "-o", "out.jsonl")
    assert looked_at == ["videos/a.mp4"]


def test_overwrite_begins_anew(malmm, folder, tmp_path, looked_at):
    (tmp_path / "out.jsonl").write_text('{"my": "own"}\n')
    for _ in range(2):
        malmm("batch", "videos/a.mp4", *FAST, "-o", "out.jsonl", "--overwrite")
        assert [item["id"] for item in lines(tmp_path / "out.jsonl")] == ["videos/a.mp4"]
    assert len(looked_at) == 2


# --- options


def test_a_limit(malmm, folder, tmp_path):
    for expected in (1, 2):
        malmm("batch", "videos/a.mp4", "videos/deep/er", *FAST, "--limit=1", "-o", "out.jsonl")
        assert len(lines(tmp_path / "out.jsonl")) == expected


def test_fail_fast(malmm, folder, tmp_path):
    done = malmm("batch", "videos", *LOUD, "--fail-fast", "-o", "out.jsonl")
    assert done.code == 1
    assert "1 of 3 items done, 1 failed, 1 not started" in done.err
    assert ["error" in item for item in lines(tmp_path / "out.jsonl")] == [False, True]


def test_what_fails_is_tried_again_last(malmm, folder, tmp_path, monkeypatch):
    caption, seen = answer.caption, []

    def fail_twice(video, **options):
        seen.append(video)
        if len(seen) in (1, 4):
            raise MalmmError("a bad moment", kind="Moment")
        return caption(video, **options)

    monkeypatch.setattr(answer, "caption", fail_twice)
    malmm("batch", "videos/a.mp4", "videos/deep", *FAST, "--retry=2", "-o", "out.jsonl")
    a, broken, b = "videos/a.mp4", "videos/deep/broken.mp4", "videos/deep/er/B.MKV"
    assert seen == [a, broken, b, a, broken, a, broken]
    assert [item["video"] for item in lines(tmp_path / "out.jsonl")] == [b, a, broken]
    found = table(tmp_path / "out.sqlite", "SELECT id, tries FROM item ORDER BY id")
    assert found == [(a, 3), (broken, 3), (b, 1)]


def test_a_dry_run_changes_nothing(malmm, folder, tmp_path):
    command = ("batch", "videos", *LOUD, "-o", "out.jsonl")
    before = sorted(tmp_path.rglob("*"))
    done = malmm(*command, "--dry-run")
    assert (done.code, len(done.out.splitlines())) == (0, 3)
    assert "3 of 3 items to do, 0 done before" in done.err
    assert "time: unknown before the first run" in done.err
    assert sorted(tmp_path.rglob("*")) == before
    malmm(*command)
    content = (tmp_path / "out.jsonl").read_bytes()
    done = malmm(*command, "--dry-run", "--workers=2", "--retry-failed")
    assert done.out == "videos/deep/broken.mp4\tfailed before\n"
    assert "1 of 3 items to do, 2 done before" in done.err
    assert "s per item in the latest run" in done.err
    assert "memory: 2 × weights of" in done.err
    assert (tmp_path / "out.jsonl").read_bytes() == content
    assert malmm(*command, "--dry-run", "--memory=3").out.count("other settings") == 2


def test_the_same_command_with_a_folder_dry(malmm, folder, tmp_path):
    assert malmm("batch", "videos", *LOUD, "-o", "new/", "--dry-run").code == 0
    assert not (tmp_path / "new").exists()


# --- when and what is written


def test_each_line_is_written_as_soon_as_it_is_known(malmm, folder, tmp_path, monkeypatch):
    """At most the one before is still on its way."""
    seen = []
    caption = answer.caption

    def look_and_caption(*arguments, **options):
        path = tmp_path / "out.jsonl"
        seen.append(len(lines(path)) if path.exists() else 0)
        return caption(*arguments, **options)

    monkeypatch.setattr(answer, "caption", look_and_caption)
    malmm("batch", "videos", *FAST, "-o", "out.jsonl")
    assert seen[0] == 0
    assert all(number - written <= 1 for number, written in enumerate(seen))


def test_ctrl_c_before_anything_is_done(malmm, folder, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(answer, "caption", stop)
    done = malmm("batch", "videos/a.mp4", *FAST, "-o", "out.jsonl")
    assert done.code == 130
    assert done.err.splitlines()[0] == "none finished; run the same command to resume"


def test_ctrl_c_keeps_what_is_done(malmm, folder, tmp_path, monkeypatch):
    caption = answer.caption

    def caption_or_stop(video, **options):
        if "broken" in video:
            raise KeyboardInterrupt
        return caption(video, **options)

    monkeypatch.setattr(answer, "caption", caption_or_stop)
    done = malmm("batch", "videos", *FAST, "-o", "out.jsonl")
    assert done.code == 130
    told = [line for line in done.err.splitlines() if not line.startswith("warning: ")]
    assert told[0] == "finished items are in out.jsonl; run the same command to resume"
    assert [item["video"] for item in lines(tmp_path / "out.jsonl")] == [
        os.path.join("videos", "a.mp4")
    ]
    monkeypatch.setattr(
        answer, "caption", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    assert malmm("batch", "videos", *FAST, "-o", "none.jsonl").code == 130
    assert not (tmp_path / "none.jsonl").exists()


def test_a_file_stranger_than_we_thought_hurts_no_other():
    def work(video):
        if video == "strange":
            raise ZeroDivisionError("division by zero")
        return video

    first, strange, last = (attempt(video, work, "caption") for video in ("a", "strange", "b"))
    assert (first, last) == ("a", "b")
    assert strange.error.kind == "Unexpected"
    assert strange.error.message == "strange: ZeroDivisionError: division by zero"


def test_a_file_that_changes_while_it_is_read(malmm, folder, tmp_path, monkeypatch):
    caption = answer.caption

    def caption_and_touch(video, **options):
        result = caption(video, **options)
        os.utime(video, (5, 5))
        return result

    monkeypatch.setattr(answer, "caption", caption_and_touch)
    malmm("batch", "videos/a.mp4", *FAST, "-o", "out.jsonl")
    (item,) = lines(tmp_path / "out.jsonl")
    assert item["error"]["kind"] == "Changed"
