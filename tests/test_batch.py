"""Many videos in one run: which they are, what becomes of those that fail, what is written."""

import io
import json
import os

import pytest
from conftest import FAST, SAMPLE

from malmm_cli import batch, pipeline
from malmm_cli.errors import UsageError


@pytest.fixture
def folder(tmp_path, clip, monkeypatch):
    """Two videos at different depths, one broken, and files that are none."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "deep/er/B.MKV"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).symlink_to(clip)
    (tmp_path / "videos" / "deep" / "broken.mp4").write_text("not a video")
    (tmp_path / "videos" / "notes.txt").write_text("not a video")
    (tmp_path / "videos" / ".hidden.mp4").write_text("not a video")
    (tmp_path / "videos" / "folder.mp4").mkdir()
    return tmp_path / "videos"


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_folder_with_all_below_it(malmm, folder, tmp_path):
    done = malmm("batch", "videos", *FAST[:-1], "-o", "out.jsonl")
    assert done.code == 1
    assert done.out == ""
    assert "2 of 3 videos captioned, 1 failed: out.jsonl" in done.err
    assert f"error: {os.path.join('videos', 'deep', 'broken.mp4')}: not a video" in done.err
    items = lines(tmp_path / "out.jsonl")
    names = ["a.mp4", "deep/broken.mp4", "deep/er/B.MKV"]
    assert [item["video"] for item in items] == [os.path.join("videos", name) for name in names]
    assert ["error" in item for item in items] == [False, True, False]
    assert items[1]["error"]["kind"] == "NotAVideo"
    assert items[0]["text"] == items[2]["text"]


def test_a_batch_without_failures(malmm, folder):
    done = malmm("batch", "videos/a.mp4", "videos/deep/er", *FAST, "-o", "out.jsonl")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_the_captions_are_those_of_caption(malmm, folder, tmp_path):
    malmm("batch", "videos/a.mp4", SAMPLE, *FAST, "-o", "out.jsonl")
    alone = malmm("caption", "videos/a.mp4", SAMPLE, *FAST, "--format", "jsonl").out.splitlines()
    for one, other in zip(lines(tmp_path / "out.jsonl"), map(json.loads, alone), strict=True):
        assert one.pop("seconds").keys() == other.pop("seconds").keys()
        assert one == other


def test_a_list_on_stdin(malmm, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("videos/a.mp4\n\nnope.mp4\r\nvideos/a.mp4\n"))
    done = malmm("batch", "-", *FAST, "-o", "out.jsonl")
    assert done.code == 1
    assert [item["video"] for item in lines(tmp_path / "out.jsonl")] == ["videos/a.mp4", "nope.mp4"]


def test_each_line_is_written_as_soon_as_it_is_known(malmm, folder, tmp_path, monkeypatch):
    seen = []
    caption = pipeline.caption

    def look_and_caption(*arguments, **options):
        path = tmp_path / "out.jsonl"
        seen.append(len(lines(path)) if path.exists() else 0)
        return caption(*arguments, **options)

    monkeypatch.setattr(pipeline, "caption", look_and_caption)
    malmm("batch", "videos", *FAST, "-o", "out.jsonl")
    assert seen == [0, 1, 2]


def test_ctrl_c_keeps_what_is_done(malmm, folder, tmp_path, monkeypatch):
    caption = pipeline.caption

    def caption_or_stop(video, **options):
        if "broken" in video:
            raise KeyboardInterrupt
        return caption(video, **options)

    monkeypatch.setattr(pipeline, "caption", caption_or_stop)
    done = malmm("batch", "videos", *FAST, "-o", "out.jsonl")
    assert done.code == 130
    assert [item["video"] for item in lines(tmp_path / "out.jsonl")] == [
        os.path.join("videos", "a.mp4")
    ]
    monkeypatch.setattr(
        pipeline, "caption", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    assert malmm("batch", "videos", *FAST, "-o", "none.jsonl").code == 130
    assert not (tmp_path / "none.jsonl").exists()


def test_a_file_stranger_than_we_thought_hurts_no_other():
    def work(video):
        if video == "strange":
            raise ZeroDivisionError("division by zero")
        return video

    first, strange, last = batch.run(["a", "strange", "b"], work, "caption")
    assert (first, last) == ("a", "b")
    assert strange.error.kind == "Unexpected"
    assert strange.error.message == "strange: ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["videos", "-o", "out.json"], "results are JSON lines"),
        (["videos", "-o", "-"], "results are JSON lines"),
        (["videos"], "-o"),
        (["empty", "-o", "out.jsonl"], "no videos in empty"),
        (["videos", "-o", "out.jsonl", "--frames=0"], "--frames 0"),
    ],
)
def test_wrong_use(refused, folder, tmp_path, arguments, says):
    (tmp_path / "empty").mkdir()
    refused("batch", *arguments, "-q", code=2, says=says)


def test_each_file_once_in_the_order_first_named(folder):
    found = batch.find_videos(["videos/deep", "-", "videos"], ["videos/a.mp4\n", "x y.mp4"])
    assert found == [
        *(
            os.path.join("videos/deep", name)
            for name in ("broken.mp4", os.path.join("er", "B.MKV"))
        ),
        *("videos/a.mp4", "x y.mp4"),
    ]
    with pytest.raises(UsageError, match="no videos"):
        batch.find_videos(["-"], ["\n"])
