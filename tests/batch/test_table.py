"""Results as CSV or TSV: a table made from the lines."""

import csv
from pathlib import Path

import pytest
from helpers.batches import inline, planned, run_batch

from malmm_cli.batch import ledger as ledgers
from malmm_cli.batch.paths import output_paths
from malmm_cli.errors import OutputError, UsageError

HEADER = ["video", "start", "end", "question", "text", "error"]


@pytest.fixture
def videos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["a.mp4", 'quoted", \n=1+1.mp4', "fail-1.mp4"]
    for name in names:
        Path(name).write_text(name)
    return names


def rows(path="out.csv"):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_a_table_of_results_and_failures(videos):
    run_batch(output_paths("out.csv"), planned(videos), engine=inline)
    header, *found = rows()
    assert header == HEADER
    assert found == [
        ["a.mp4", "0.000", "1.000", "", "a text about a.mp4, None", ""],
        [videos[1], "0.000", "1.000", "", f"a text about {videos[1]}, None", ""],
        ["fail-1.mp4", "", "", "", "", "NotAVideo: fail-1.mp4: not a video"],
    ]
    run_batch(output_paths("out.tsv"), planned(videos[:2]), engine=inline)
    first = [line.split("\t")[0] for line in Path("out.tsv").read_text("utf-8").splitlines()]
    assert first == ["video", "a.mp4", 'quoted", =1+1.mp4', "fail-1.mp4"], "also of out.jsonl"


def test_a_table_is_resumed_and_made_again(videos):
    paths = output_paths("out.csv")
    run_batch(paths, planned(videos[:1]), engine=inline)
    assert run_batch(paths, planned(videos[:2]), engine=inline).done == 1
    assert [row[0] for row in rows()] == ["video", *videos[:2]]
    Path("out.csv").unlink()
    assert run_batch(paths, planned(videos[:2]), engine=inline).done == 0
    assert [row[0] for row in rows()] == ["video", *videos[:2]]
    Path("out.sqlite").unlink()
    assert run_batch(paths, planned(videos[:2]), engine=inline).done == 0


def test_a_table_that_somebody_makes_during_the_run_stays(videos):
    def engine(next_job):
        Path("out.csv").write_text("mine")
        yield from inline(next_job)

    with pytest.raises(OutputError, match=r"out\.csv: exists"):
        run_batch(output_paths("out.csv"), planned(videos), engine=engine)
    assert Path("out.csv").read_text() == "mine"
    Path("out.csv").unlink()
    assert run_batch(output_paths("out.csv"), planned(videos[:2]), engine=inline).done == 0
    assert [row[0] for row in rows()] == ["video", *videos]


def test_ctrl_c_leaves_a_table_of_what_is_done(videos):
    def stopped(next_job):
        yield next(inline(next_job))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(output_paths("out.csv"), planned(videos), engine=stopped)
    assert [row[0] for row in rows()] == ["video", "a.mp4"]


def test_a_kill_while_the_table_is_written(videos, monkeypatch):
    paths = output_paths("out.csv")
    run_batch(paths, planned(videos[:1]), engine=inline)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ledgers.table, "write_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            run_batch(paths, planned(videos[:2]), engine=inline)
    assert run_batch(paths, planned(videos[:2]), engine=inline).done == 0
    assert [row[0] for row in rows()] == ["video", *videos[:2]]


def test_tables_of_others_are_left_alone(videos):
    Path("out.csv").write_text("mine")
    with pytest.raises(UsageError, match="was not written by malmm"):
        run_batch(output_paths("out.csv"), planned(videos), engine=inline)
    assert Path("out.csv").read_text() == "mine"
    run_batch(output_paths("out.csv"), planned(videos), engine=inline, overwrite=True)
    assert rows()[0] == HEADER


def test_the_format_is_that_of_the_name(videos):
    assert output_paths("out.csv").results == Path("out.jsonl")
    with pytest.raises(UsageError, match="holds CSV, not srt"):
        output_paths("out.csv", "srt")
