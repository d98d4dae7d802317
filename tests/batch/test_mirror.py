"""An output folder that mirrors the tree of the input folder."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.batches import inline, planned, run_batch
from helpers.commands import FAST, SAMPLE

from malmm_cli.batch.files import Names, is_name
from malmm_cli.batch.paths import output_paths

RUN = ("batch", "videos", *FAST, "-o", "texts/", "--format", "srt")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("clip.mp4", "sub/deep/clip.mp4", "sub/deep/clip.mkv", "x.srt/clip.mp4"):
        Path("videos", name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SAMPLE, Path("videos", name))
    return tmp_path


def files():
    return {
        path.relative_to("texts").as_posix(): path.stat().st_mtime_ns
        for path in Path("texts").rglob("*.srt")
        if path.is_file()
    }


def test_the_tree_is_mirrored_and_stays(malmm, tree):
    assert malmm(*RUN).code == 0
    first = files()
    assert sorted(first) == [
        *("clip.srt", "sub/deep/clip-2.srt", "sub/deep/clip.srt", "x.srt_/clip.srt"),
    ]
    names = {
        item["video"]: item["name"]
        for item in map(json.loads, Path("texts/results.jsonl").read_text().splitlines())
    }
    assert malmm(*RUN).code == 0
    assert files() == first, "a rerun writes nothing"
    Path("texts/sub/deep/clip.srt").unlink()
    shutil.copy(SAMPLE, "videos/sub/deep/a.mp4")
    assert malmm(*RUN).code == 0
    assert sorted(files()) == sorted([*first, "sub/deep/a.srt"])
    for line in map(json.loads, Path("texts/results.jsonl").read_text().splitlines()):
        assert names.get(line["video"], "sub/deep/a") == line["name"]


def test_files_of_others_below_the_output_are_left_alone(malmm, tree):
    Path("texts/sub/deep").mkdir(parents=True)
    Path("texts/sub/deep/clip.srt").write_text("mine")
    done = malmm(*RUN)
    assert done.code == 2
    assert "was not written by malmm" in done.err
    assert Path("texts/sub/deep/clip.srt").read_text() == "mine"


def test_a_flat_folder_of_an_older_version_is_resumed(tree):
    items = planned(["videos/clip.mp4", "videos/sub/deep/clip.mp4"])
    paths = output_paths("texts/", "srt")
    run_batch(paths, items, engine=inline)
    assert sorted(files()) == ["clip-2.srt", "clip.srt"]
    mirrored = [items[0], replace(items[1], below="sub/deep")]
    assert run_batch(paths, mirrored, engine=inline).done == 0
    assert sorted(files()) == ["clip-2.srt", "clip.srt"]


@pytest.mark.parametrize("below", ["..", "a/../../b", "a\nb", " ", "results.jsonl", "x.sqlite"])
def test_no_folder_leads_out_or_onto_the_results(below):
    found = Names({}, ()).of("clip.mp4", below)
    assert is_name(found)
    assert not {"..", ".", "", "results.jsonl", "x.sqlite"} & set(found.split("/"))


@pytest.mark.parametrize(
    "name", ["../a", "a/../b", "/a", "a//b", "a/", "a/b\0c", "", "a/" + 256 * "b"]
)
def test_names_that_lead_out_are_not_read(name):
    assert not is_name(name)


@pytest.mark.skipif(os.name == "nt", reason="there are no such names")
@pytest.mark.parametrize("name", ["2019: Oma/What?", 'it\'s "odd"/-dash', " outer /a\nb", "a\\b"])
def test_names_that_are_there_may_stay_as_they_are(name):
    below, _, stem = name.rpartition("/")
    assert Names({}, (), as_is=True).of(f"{name}.mp4", below) == name
    assert is_name(name)
    assert Names({}, ()).of(f"{stem}.mp4", below) != name, "another disk may not have them"
