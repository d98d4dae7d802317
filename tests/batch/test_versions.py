"""An output that an earlier version began is continued, byte for byte."""

import json
import shutil

import pytest
from helpers.commands import FAST

import malmm_cli
from malmm_cli.pipeline import answer


@pytest.fixture
def videos(tmp_path, monkeypatch, clip):
    """A folder with a video; the next is added by tests."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    shutil.copy(clip, tmp_path / "videos" / "a.mp4")
    return tmp_path / "videos"


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*.json*")}


@pytest.mark.parametrize("state", ["kept", "lost"])
@pytest.mark.parametrize("form", [("-o", "out.jsonl"), ("-o", "out/", "--format", "json")])
def test_results_without_a_version_stay_as_they_are(malmm, videos, clip, form, state, monkeypatch):
    monkeypatch.setattr(answer, "__version__", None)
    assert malmm("batch", videos, *FAST, *form).code == 0
    before = contents(videos.parent)
    assert before
    assert not any(b'"malmm": ' in content for content in before.values())
    monkeypatch.undo()
    monkeypatch.chdir(videos.parent)
    if state == "lost":
        for path in videos.parent.rglob("*.sqlite*"):
            path.unlink()
    done = malmm("batch", videos, *FAST[:-1], *form)
    assert "nothing left to do, 1 done before" in done.err
    assert contents(videos.parent) == before
    shutil.copy(clip, videos / "b.mp4")
    assert "1 of 1 item done, 1 done before" in malmm("batch", videos, *FAST[:-1], *form).err
    after = contents(videos.parent)
    for path, content in before.items():
        assert after[path].startswith(content), path
    lines = next(content for path, content in after.items() if path.suffix == ".jsonl")
    versions = [json.loads(line).get("malmm") for line in lines.splitlines()]
    assert versions == [None, malmm_cli.__version__]
