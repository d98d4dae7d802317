"""Which files of folders are taken, and inputs that do not exist."""

import io
import os
from pathlib import Path

import pytest
from helpers.commands import FAST
from helpers.events import Recorded

from malmm_cli.batch.inputs import find_videos
from malmm_cli.batch.listed import listed
from malmm_cli.batch.patterns import Patterns
from malmm_cli.errors import UsageError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b.mkv", "talks/a.mp4", "talks/raw/c.mp4", "trash/d.mp4", "t/raw/e.mkv"):
        Path("videos", name).parent.mkdir(parents=True, exist_ok=True)
        Path("videos", name).write_text(name)
    return tmp_path


def chosen(include=(), exclude=(), events=None):
    patterns = Patterns(include, exclude)
    found = find_videos(["videos"], (), events or Recorded(), patterns=patterns)
    return sorted(Path(path).relative_to("videos").as_posix() for path in found)


@pytest.mark.parametrize(
    ("include", "exclude", "found"),
    [
        (["*.mkv"], [], ["b.mkv", "t/raw/e.mkv"]),
        (["/*.mp4"], [], ["a.mp4"]),
        (["talks/"], [], ["talks/a.mp4", "talks/raw/c.mp4"]),
        (["talks/**/*.mp4", "b.*"], [], ["b.mkv", "talks/a.mp4", "talks/raw/c.mp4"]),
        ([], ["raw/", "trash"], ["a.mp4", "b.mkv", "talks/a.mp4"]),
        ([], ["/talks/raw"], ["a.mp4", "b.mkv", "t/raw/e.mkv", "talks/a.mp4", "trash/d.mp4"]),
        ([], ["*.mp4", "!a.mp4"], ["a.mp4", "b.mkv", "t/raw/e.mkv", "talks/a.mp4"]),
        (["*.mp4"], ["raw/"], ["a.mp4", "talks/a.mp4", "trash/d.mp4"]),
    ],
)
def test_patterns_choose_below_the_folder(tree, include, exclude, found):
    events = Recorded()
    assert chosen(include, exclude, events) == found
    assert events.warnings == []


def test_an_excluded_folder_is_not_walked(tree, monkeypatch):
    entered = []
    scandir = os.scandir

    def noted(path):
        entered.append(Path(path).name)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", noted)
    chosen(exclude=["trash/", "t"])
    assert "talks" in entered
    assert not {"trash", "t"} & set(entered)


def test_a_pattern_in_vain_is_named(tree):
    events = Recorded()
    assert chosen(["*.mp4", "*.webm"], ["cache/"], events)
    assert [line.split(":")[0] for line in events.warnings] == [
        "--include *.webm",
        "--exclude cache/",
    ]


@pytest.mark.parametrize("pattern", ["", "# comment", "!"])
def test_what_is_not_a_pattern(tree, pattern):
    with pytest.raises(UsageError, match="not a pattern"):
        Patterns([pattern])


def test_patterns_without_a_folder(refused, tree):
    run = ("batch", "videos/a.mp4", "--include", "*.mp4", *FAST, "-o", "out.jsonl")
    refused(*run, code=2, says="apply to folders")


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("vidoes", "did you mean videos?"),
        ("videos/talk", f"did you mean {Path('videos', 'talks')}?"),
        ("vidoes/talks/*.mp4", f"did you mean {Path('videos', 'talks', '*.mp4')}?"),
        ("videos/a.mp5", f"did you mean {Path('videos', 'a.mp4')}?"),
        ("videos/*.webm", ""),
        ("nothing-like-it", ""),
    ],
)
def test_an_input_that_does_not_exist_is_named_at_once(refused, tree, monkeypatch, given, hint):
    from malmm_cli import hub

    monkeypatch.setattr(hub, "locate", lambda *_, **__: pytest.fail("the model was wanted"))
    says = f"{given}: no "
    said = refused("batch", "videos", given, *FAST, "-o", "o.jsonl", code=2, says=says, hint=hint)
    assert ("hint" in said) == bool(hint)


def test_separated_by_nul_is_for_a_list(refused, tree):
    command = ("batch", "videos", "-0", *FAST, "-o", "o.jsonl")
    refused(*command, code=2, says="-0 applies to a list on stdin, but no INPUT is -", hint="-0")


NAMES = "videos/a.mp4\nvideos/b ö 漢.mp4\n"


def stdin(content):
    return io.TextIOWrapper(io.BytesIO(content), "utf-8", "surrogateescape")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode("utf-16"),
        lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
        lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
        lambda text: text.encode("utf-8-sig"),
    ],
)
def test_lists_with_a_mark_of_their_encoding(encode, end):
    assert listed(stdin(encode(NAMES.replace("\n", end)))) == NAMES.splitlines()


def test_a_list_of_many_pieces_in_utf_16():
    names = [f"videos/{'ö' * 50}{number}.mp4" for number in range(5000)]
    assert listed(stdin("\n".join(names).encode("utf-16"))) == names


def test_half_a_character_of_utf_16():
    with pytest.raises(UsageError, match="not valid UTF-16"):
        listed(stdin(NAMES.encode("utf-16")[:-1]))


@pytest.mark.parametrize("last", ["", "\0"])
def test_names_that_end_in_nul(last):
    names = ["a b.mp4", "two\nlines.mp4", " spaces ", "\x01", "\udcff.mp4"]
    content = os.fsencode("\0".join(names) + last)
    assert listed(stdin(content), null=True) == names
    assert listed([("\0".join(names) + last)], null=True) == names


def test_a_list_that_ends_in_nul_by_the_command(malmm, tree, monkeypatch):
    monkeypatch.setattr("sys.stdin", stdin(b"videos/a.mp4\0videos/b.mkv\0"))
    done = malmm("batch", "-", "-0", *FAST[:-1], "-o", "out.jsonl", "--dry-run")
    assert done.out == "videos/a.mp4\tnew\nvideos/b.mkv\tnew\n"
