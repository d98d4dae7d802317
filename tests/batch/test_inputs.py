"""Folders with files that only end like videos, and lists on stdin that are something else."""

import io
import json
import os
from pathlib import Path

import pytest
from helpers.commands import FAST
from helpers.events import Recorded
from helpers.media_files import write_video

from malmm_cli.batch.inputs import find_videos
from malmm_cli.batch.listed import listed
from malmm_cli.errors import UsageError
from malmm_cli.media.files import not_a_stream

TYPESCRIPT = "export const GREETING: string = 'Good Morning';\n" * 200
QT = '<?xml version="1.0"?>\n<!DOCTYPE TS>\n<TS version="2.1" language="de_DE">\n</TS>\n'


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    """A transport stream of packets of 188 bytes."""
    return write_video(tmp_path_factory.mktemp("streams") / "a.ts", 12).read_bytes()


def packets(stream):
    return [stream[start : start + 188] for start in range(0, len(stream), 188)]


def streams(stream):
    return {
        "plain.ts": stream,
        "timed.mts": b"".join(bytes(4) + packet for packet in packets(stream)),
        "coded.TS": b"".join(packet + bytes(16) for packet in packets(stream)),
        "begins-late.ts": stream[100:],
        "after-rubbish.ts": bytes(5000) + stream,
        "cut.ts": stream[:400],
        "short.ts": stream[:188],
    }


OTHERS = {
    "app.ts": TYPESCRIPT.encode(),
    "types.d.ts": b"declare module 'x';\n",
    "module.mts": b"export default 1\n",
    "german.ts": QT.encode(),
    "wide.ts": TYPESCRIPT.encode("utf-16"),
    "shouted.ts": b"G" * 10_000,
    "empty.ts": b"",
    "spaced.ts": (b"G" + b"." * 187) * 20,
    "binary.ts": bytes(range(256)) * 50,
}


def test_streams_are_told_from_texts(stream, tmp_path):
    for name, content in (streams(stream) | OTHERS).items():
        (tmp_path / name).write_bytes(content)
        assert not_a_stream(str(tmp_path / name)) == (name in OTHERS), name
    assert not not_a_stream(str(tmp_path / "nowhere.ts")), "which is told when it is tried"
    (tmp_path / "empty.mp4").touch()
    assert not not_a_stream(str(tmp_path / "empty.mp4"))


@pytest.mark.parametrize("given", ["{}", "{}/**", "{}/**/*.ts"])
def test_folders_and_patterns_leave_them_out_and_say_so(stream, tmp_path, given):
    for place in ("clips", "src"):
        (tmp_path / place).mkdir()
    (tmp_path / "clips" / "a.ts").write_bytes(stream)
    (tmp_path / "src" / "app.ts").write_text(TYPESCRIPT)
    (tmp_path / "src" / "main.ts").write_text(TYPESCRIPT)
    events = Recorded()
    given = given.format(tmp_path)
    assert find_videos([given], (), events) == [str(tmp_path / "clips" / "a.ts")]
    (warning,) = events.warnings
    assert warning.startswith(f"{given}: {tmp_path}/src/app.ts and 1 more are not MPEG-TS")
    with pytest.raises(UsageError, match="no videos in"):
        find_videos([str(tmp_path / "src")], ())


def test_a_file_named_itself_is_tried(malmm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("app.ts").write_text(TYPESCRIPT)
    assert find_videos(["app.ts"], ()) == ["app.ts"]
    assert find_videos(["-"], ["app.ts\n"]) == ["app.ts"]
    assert malmm("batch", "app.ts", *FAST, "-o", "out.jsonl").code == 1
    assert json.loads(Path("out.jsonl").read_text())["error"]["kind"] == "NotAVideo"


def test_what_is_hidden_or_not_all_there_is_not_found(tmp_path, clip):
    for name in ("._a.mp4", ".a.mp4", "a.mp4.part", "a.mp4.crdownload", "a.mp4.tmp", "a.dat"):
        (tmp_path / name).write_bytes(clip.read_bytes())
    (tmp_path / "a.mp4").write_bytes(clip.read_bytes())
    assert find_videos([str(tmp_path)], ()) == [str(tmp_path / "a.mp4")]


# --- lists


def stdin(content, encoding="utf-8"):
    return io.TextIOWrapper(io.BytesIO(content), encoding, "surrogateescape", newline="\n")


NAMES = "videos/a.mp4\nvideos/b ö.mp4\n"


@pytest.mark.parametrize(
    "content",
    [
        NAMES.encode(),
        NAMES.encode("utf-8-sig"),
        NAMES.replace("\n", "\r\n").encode(),
        NAMES.encode()[:-1],
        b"\n\n" + NAMES.encode() + b"\n",
    ],
)
def test_lists_as_editors_write_them(content):
    assert listed(stdin(content)) == ["videos/a.mp4", "videos/b ö.mp4"]


@pytest.mark.parametrize("source", [stdin, lambda content: io.StringIO(content.decode())])
def test_only_a_mark_before_the_first_name_is_taken_off(source):
    content = "\ufeffa.mp4\0\ufeffb.mp4\0".encode()
    assert listed(source(content), null=True) == ["a.mp4", "\ufeffb.mp4"]
    assert listed(source(content.replace(b"\0", b"\n"))) == ["a.mp4", "\ufeffb.mp4"]


def test_names_in_bytes_that_are_no_text():
    assert [os.fsencode(name) for name in listed(stdin(NAMES.encode("latin-1")))] == [
        line.encode("latin-1") for line in NAMES.splitlines()
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize(
    ("content", "says", "hint"),
    [
        (NAMES.replace("\n", "\0").encode(), "separated by NUL", "-print0"),
        (b"a.mp4\0", "separated by NUL", "-print0"),
        (b"a.mp4\0" * 100_000, "separated by NUL", "-print0"),
        (b"a.mp4\nb.mp4\0c.mp4\n", "separated by NUL", "-print0"),
        (NAMES.replace("\n", "\r").encode(), "separated by carriage returns", "tr"),
        (b"a.mp4\r" * 100_000, "separated by carriage returns", "tr"),
        (NAMES.encode("utf-16-le"), "UTF-16", "iconv -f UTF-16LE"),
        (NAMES.encode("utf-16-be"), "UTF-16", "iconv -f UTF-16BE"),
        (NAMES.encode("utf-32"), "UTF-16", "iconv"),
        (bytes(10**6), "is not a list of files", "one per line"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", "is not a list of files", "one per line"),
        (b"\x1f\x8b\x08\x01\x02\x03", "is not a list of files", "one per line"),
        (b"a" * 10**6, "a line of more than", "one per line"),
    ],
)
def test_lists_that_are_none_are_told(content, encoding, says, hint):
    with pytest.raises(UsageError) as caught:
        listed(stdin(content, encoding))
    assert says in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message


def test_a_list_that_is_none_is_one_line_of_the_command(refused, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", stdin(b"a.mp4\0b.mp4\0"))
    refused("batch", "-", *FAST, "-o", "out.jsonl", code=2, says="separated by NUL")


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no such device")
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom"])
def test_a_list_without_end(device):
    how = {"encoding": "utf-8", "errors": "surrogateescape", "newline": "\n"}
    with open(device, **how) as lines, pytest.raises(UsageError):
        listed(lines)


@pytest.mark.skipif(os.name != "posix", reason="names that Windows does not take")
def test_strange_names_that_are_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["\x1b[2J.mp4", "a\rb.mp4", "tab\t.mp4", "\x01.mp4"]
    for name in names:
        Path(name).touch()
    assert listed([f"{name}\n" for name in names]) == names
    assert listed(["a.mp4\n", "\x02gone.mp4\n"]) == ["a.mp4", "\x02gone.mp4"]


@pytest.mark.parametrize("content", [NAMES, "a.mp4\n"])
def test_names_that_do_not_end_in_nul(content):
    with pytest.raises(UsageError, match="separated by line feeds, not by NUL") as caught:
        listed(stdin(content.encode()), null=True)
    assert caught.value.hint == "leave out -0"


@pytest.mark.parametrize("mark", ["'", '"'])
def test_names_in_quotation_marks(tmp_path, monkeypatch, mark):
    monkeypatch.chdir(tmp_path)
    Path("a b.mp4").touch()
    with pytest.raises(UsageError, match="are in quotation marks") as caught:
        listed([f"{mark}a b.mp4{mark}\n"])
    assert caught.value.hint == "give them as they are: a b.mp4"
    gone = f"{mark}gone.mp4{mark}"
    assert listed([f"{gone}\n"]) == [gone], "which may be its name"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_pipes_in_a_folder_are_no_videos(tmp_path, clip):
    (tmp_path / "a.mp4").write_bytes(clip.read_bytes())
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "gone.mp4").symlink_to("nowhere.mp4")
    events = Recorded()
    found = find_videos([str(tmp_path)], (), events)
    assert found == [str(tmp_path / "a.mp4"), str(tmp_path / "gone.mp4")]
    assert events.warnings == [f"{tmp_path}/pipe.mp4: is a pipe and is not read"]
