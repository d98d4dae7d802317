"""Files of JSON lines: read with their places, repaired, and gone on with."""

import pytest

from malmm_cli.errors import OutputError
from malmm_cli.files.jsonl import lines_in, open_lines, without


def test_a_cut_off_line_is_repaired_and_gone_on_with(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"one\ntwo\nthr")
    found = list(lines_in(path))
    assert [(x.start, x.stop, x.is_whole) for x in found] == [
        (0, 4, True),
        (4, 8, True),
        (8, 11, False),
    ]
    without(path, [(x.start, x.stop) for x in found if not x.is_whole])
    with open_lines(path, append=True) as write:
        write("three\n")
    assert path.read_bytes() == b"one\ntwo\nthree\n"


def test_ranges_in_any_order_leave_a_file(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"one\ntwo\nthree\n")
    without(path, [(8, 14), (0, 4)])
    assert path.read_bytes() == b"two\n"


def test_what_is_not_there_has_no_lines(tmp_path):
    path = tmp_path / "lines.jsonl"
    assert not list(lines_in(path))
    assert not list(lines_in(tmp_path))
    without(path, [])
    assert path.read_bytes() == b""


def test_a_repair_that_fails_gives_the_hint(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.mkdir()
    with pytest.raises(OutputError, match="cannot be written") as caught:
        without(path, [], hint="try again")
    assert caught.value.hint == "try again"
