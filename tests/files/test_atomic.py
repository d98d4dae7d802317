"""Whole or not at all: names nobody can foresee, no links followed, the umask's permissions."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import FAST, SAMPLE

from malmm_cli.errors import OutputError
from malmm_cli.files import atomic
from malmm_cli.files.atomic import new_file, new_folder, new_path, remove_leftovers, temporary

posix = pytest.mark.skipif(os.name != "posix", reason="links and permissions are POSIX's")


def write(form, path, content=b"new"):
    if form == "file":
        with new_file(path, durable=True) as file:
            file.write(content)
    elif form == "path":
        with new_path(path, durable=True) as new:
            new.write_bytes(content)
            new.chmod(0o600)  # as safetensors does
    else:
        with new_folder(path, durable=True) as place:
            (place / "inside").write_bytes(content)
            (place / "inside").chmod(0o600)


def content(form, path):
    return (path / "inside" if form == "folder" else path).read_bytes()


@pytest.fixture(params=["file", "path", "folder"])
def form(request):
    return request.param


@posix
def test_a_link_at_the_temporary_name_is_not_followed(tmp_path, monkeypatch, form):
    """Nobody can foresee the name; if he could, it would not help."""
    (tmp_path / "victim").write_text("precious")
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda _: "0" * 16)
    link = temporary(tmp_path / "out")
    link.symlink_to("victim")
    with pytest.raises(OutputError, match="File exists"):
        write(form, tmp_path / "out")
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "out").exists()


def test_names_are_new_each_time(tmp_path):
    assert len({temporary(tmp_path / "x") for _ in range(100)}) == 100
    assert temporary(tmp_path / ("x" * 255)).parent == tmp_path
    assert len(temporary(tmp_path / ("x" * 255)).name) < 50


@posix
@pytest.mark.parametrize("kind", ["link", "dangling", "hardlink"])
@pytest.mark.parametrize("form", ["file", "path"])
def test_a_link_at_the_name_itself_is_replaced(tmp_path, kind, form):
    if kind != "dangling":
        (tmp_path / "victim").write_text("precious")
    if kind == "hardlink":
        (tmp_path / "out").hardlink_to(tmp_path / "victim")
    else:
        (tmp_path / "out").symlink_to("victim")
    write(form, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"new"
    assert not (tmp_path / "out").is_symlink()
    assert kind == "dangling" or (tmp_path / "victim").read_text() == "precious"
    assert kind != "dangling" or not (tmp_path / "victim").exists()


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_came_first_stays(tmp_path, monkeypatch, links):
    """Also on disks without hard links."""

    def none(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(atomic.os, "link", none)
    path = tmp_path / "out"
    with new_file(path, replace=False) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    path.unlink()
    with pytest.raises(OutputError, match="exists") as caught, new_file(path, replace=False):
        path.write_bytes(b"theirs")
    assert caught.value.kind == "OutputExists"
    assert path.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["out"]


@posix
def test_a_folder_does_not_take_the_place_of_a_link(tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "out").symlink_to("victim")
    with pytest.raises(OutputError, match="out: cannot be written"):
        write("folder", tmp_path / "out")
    assert not list((tmp_path / "victim").iterdir())


@pytest.fixture
def masked():
    """Sets the umask for a while."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@posix
@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o027, 0o077])
def test_new_files_have_what_the_umask_gives(tmp_path, masked, form, mask):
    masked(mask)
    write(form, tmp_path / "out")
    for path in (tmp_path / "out", *(tmp_path / "out").glob("*")):
        expected = (0o777 if path.is_dir() else 0o666) & ~mask
        assert stat.S_IMODE(path.stat().st_mode) == expected


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o700])
def test_replaced_files_keep_their_permissions(tmp_path, masked, form, mode):
    path = tmp_path / "out"
    path.mkdir() if form == "folder" else path.touch()
    path.chmod(mode)
    write(form, path)
    assert stat.S_IMODE(path.stat().st_mode) == mode or form == "folder"
    assert content(form, path) == b"new"


@posix
def test_what_is_private_is_private_from_the_start(tmp_path, masked):
    (tmp_path / "out").touch(mode=0o600)
    with new_file(tmp_path / "out"):
        (new,) = tmp_path.glob(".malmm-*")
        assert stat.S_IMODE(new.stat().st_mode) == 0o600
    with new_path(tmp_path / "out") as new:
        new.touch()
        assert stat.S_IMODE(new.parent.stat().st_mode) == 0o700


@posix
def test_what_killed_runs_left_goes_and_nothing_else(tmp_path):
    mine, other = temporary(tmp_path / "out"), temporary(tmp_path / "other")
    mine.write_bytes(b"half")
    other.mkdir()
    (other / "half").touch()
    foreign = [".malmm-train", ".malmm-mine", ".out.new", f"{mine.name}.txt", "letter"]
    for name in foreign:
        (tmp_path / name).write_text("mine")
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "letter").write_text("precious")
    link = temporary(tmp_path / "out")
    link.symlink_to("victim")
    remove_leftovers(tmp_path, ["out"])
    assert {p.name for p in tmp_path.iterdir()} == {*foreign, other.name, link.name, "victim"}
    remove_leftovers(tmp_path, older_than=3600)
    assert other.exists()
    remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {*foreign, link.name, "victim"}
    assert (tmp_path / "victim" / "letter").read_text() == "precious"
    remove_leftovers(tmp_path / "nowhere")


def test_too_many_open_files_get_a_hint_of_their_own(tmp_path, monkeypatch):
    def none_left(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(atomic.os, "open", none_left)
    with pytest.raises(OutputError) as caught, new_file(tmp_path / "out"):
        pass
    assert "ulimit -n" in caught.value.hint


@posix
def test_commands_follow_the_umask(malmm, tmp_path, masked, vicuna_folder):
    """Every file and folder that a command leaves, whatever library wrote it."""
    masked(0o027)
    quick = ("--model", "tiny", "--frames", "2", "--memory", "2", "--max-new-tokens", "2")
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(f'{{"id": "1", "video": "{SAMPLE}", "question": "what?", "answer": "a"}}\n')
    out = tmp_path / "out"
    out.mkdir()
    learn = ("--steps", "1", "--batch-size", "1", "--frames", "2", "--model", vicuna_folder)
    for command in (
        ("caption", SAMPLE, *FAST, "-o", out / "a.txt", "--cache", out / "cache"),
        ("remember", SAMPLE, *quick[:6], "-o", out / "a.memory", "-q"),
        ("batch", SAMPLE, *FAST, "-o", out / "b.jsonl"),
        ("batch", SAMPLE, *FAST, "-o", f"{out}/folder/"),
        ("frames", SAMPLE, "--frames", "2", "-o", out / "a.png", "--dump", out / "dump", "-q"),
        ("synth", out / "world", "--videos", "1", "--minutes", "0.2", "--questions", "1", "-q"),
        ("eval", tasks, *quick, "--predictions", out / "p.jsonl"),
        ("train", tasks, "-o", out / "model", *learn, "-q"),
        (
            *("convert", out / "model/training/trained.safetensors", out / "converted"),
            *("--base", vicuna_folder),
        ),
    ):
        done = malmm(*command)
        assert done.code == 0, done.err
    wrong = {
        str(path.relative_to(out)): oct(path.stat().st_mode)
        for path in out.rglob("*")
        if stat.S_IMODE(path.stat().st_mode) != (0o750 if path.is_dir() else 0o640)
    }
    assert not wrong


@posix
def test_links_of_others_in_a_folder_lead_nowhere(malmm, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "out").mkdir()
    stem = Path(SAMPLE).stem
    for name in (f".{stem}.txt.new", ".results.jsonl.new", ".malmm-x", f"{stem}.srt"):
        (tmp_path / "out" / name).symlink_to("../victim")
    assert malmm("batch", SAMPLE, *FAST, "-o", f"{tmp_path}/out/").code == 0
    assert victim.read_text() == "precious"
    done = malmm("batch", SAMPLE, *FAST, "-o", f"{tmp_path}/out/", "--format", "srt")
    assert (done.code, "is not what malmm wrote" in done.err) == (0, True)
    assert (tmp_path / "out" / f"{stem}.srt").is_symlink()
    again = ("--overwrite", "--format", "srt")
    assert malmm("batch", SAMPLE, *FAST, *again, "-o", f"{tmp_path}/out/").code == 0
    assert not (tmp_path / "out" / f"{stem}.srt").is_symlink()
    assert victim.read_text() == "precious"


@posix
def test_too_few_open_files_are_told_before_a_batch(tmp_path):
    resource = pytest.importorskip("resource")
    command = [sys.executable, "-m", "malmm_cli", "batch", SAMPLE, *FAST, "-o", "out.jsonl"]

    def few(hard):
        return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (16, hard))

    how = {"cwd": tmp_path, "capture_output": True, "text": True, "check": False}
    done = subprocess.run(command, preexec_fn=few(16), **how)
    assert done.returncode == 1
    error, hint = done.stderr.splitlines()
    assert error == "error: a batch with --workers 1 needs 20 open files at once; 16 are allowed"
    assert "ulimit -n" in hint
    assert not os.listdir(tmp_path)
    done = subprocess.run(command, preexec_fn=few(64), **how)
    assert (done.returncode, done.stderr) == (0, ""), "what the system allows is taken"


@posix
def test_too_many_open_files_are_one_line_of_any_command(malmm, monkeypatch):
    from malmm_cli import media

    def none_left(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(media, "probe", none_left)
    done = malmm("frames", SAMPLE)
    assert done.code == 1
    assert done.err.splitlines()[0] == "error: too many open files"
