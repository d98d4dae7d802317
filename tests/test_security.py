"""The claims of docs/security.md that no other test shows, and that each names its test."""

import ast
import io
import json
import os
import re
import sqlite3
from pathlib import Path

import pytest
from helpers.commands import FAST

REPOSITORY = Path(__file__).parents[1]
SOURCES = sorted((REPOSITORY / "malmm_cli").rglob("*.py"))


def calls():
    """Every call in the package: its file, what is called, and its keywords."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                yield path.relative_to(REPOSITORY).as_posix(), ast.unparse(node.func), keywords


def test_no_shell():
    for path, name, keywords in calls():
        assert "shell" not in keywords, path
        assert name not in ("os.system", "os.popen", "eval", "exec", "subprocess.getoutput"), path


@pytest.mark.skipif(os.name != "posix", reason="names that Windows does not take")
@pytest.mark.parametrize(
    "name", ["$(touch pwned).mp4", "; touch pwned;.mp4", "-y.mp4", "--help", "`touch pwned`.mp4"]
)
@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_names_are_never_commands(malmm, tmp_path, monkeypatch, clip, name, decoder):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(clip.read_bytes())
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{name}\n"))
    done = malmm("batch", "-", *FAST, "--decoder", decoder, "-o", "out.jsonl")
    assert done.code == 0, done.err
    assert not Path("pwned").exists()
    assert json.loads(Path("out.jsonl").read_text())["video"] == name


def test_lists_write_nowhere_else(malmm, tmp_path, monkeypatch, clip):
    (tmp_path / "outside.mp4").write_bytes(clip.read_bytes())
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    listed = "../outside.mp4\n/etc/passwd\n../../../../../../etc/hosts\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(listed))
    malmm("batch", "-", *FAST, "-o", "texts/")
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.txt")}
    assert written == {"inside/texts/outside.txt"}


def test_messages_hold_no_control_characters(malmm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("\x1b[2Jgone\r.mp4").write_text("no video")
    err = malmm("batch", ".", *FAST[:-1], "-o", "out.jsonl").err
    assert "gone" in err
    assert err.replace("\n", "").isprintable()


@pytest.mark.parametrize("decoder", ["auto", "pyav", "ffmpeg"])
@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n#EXTINF:1,\n{address}\n",
        "ffconcat version 1.0\nfile '{address}'\n",
        "<?xml version='1.0'?><MPD><BaseURL>{address}</BaseURL></MPD>",
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video {port} RTP/AVP 96\r\n",
        "[playlist]\nFile1={address}\n",
    ],
)
def test_nothing_is_fetched(malmm, tmp_path, monkeypatch, content, decoder):
    import socket

    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        port = server.getsockname()[1]
        text = content.replace("{address}", f"http://127.0.0.1:{port}/a.mp4")
        Path("list.mp4").write_text(text.replace("{port}", str(port)))
        assert malmm("batch", ".", *FAST, "--decoder", decoder, "-o", "out.jsonl").code == 1
        with pytest.raises(TimeoutError):
            server.accept()
    assert json.loads(Path("out.jsonl").read_text())["error"]["kind"] in ("Playlist", "NotAVideo")


def test_no_remote_code():
    for path, _, keywords in calls():
        assert keywords.get("trust_remote_code", "False") == "False", path


def test_pickles_only_by_weights_only():
    loads = [(path, k) for path, name, k in calls() if name == "torch.load"]
    assert loads
    for path, keywords in loads:
        assert keywords["weights_only"] == "True", path
    for path, name, _ in calls():
        assert name not in ("pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load"), path


def test_tokens_are_never_told(malmm, tmp_path, monkeypatch, clip):
    token = "hf_" + "Secret" * 6
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", token)
    Path("a.mp4").write_bytes(clip.read_bytes())
    done = [
        malmm("batch", ".", *FAST[:-1], "-v", "-o", "out.jsonl"),
        malmm("caption", "a.mp4", "--model", "nobody/nothing", "--offline", "-v"),
        malmm("doctor"),
    ]
    told = "".join(one.out + one.err for one in done)
    with sqlite3.connect("out.sqlite") as base:
        told += "\n".join(base.iterdump())
    assert token not in told + Path("out.jsonl").read_text()


def test_each_claim_names_a_test_that_is_there():
    page = (REPOSITORY / "docs" / "security.md").read_text("utf-8")
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", page, re.M)[1:]
    assert len(rows) > 8
    for claim, shown in rows:
        file = None
        names = re.findall(r"`([\w/]+\.py)?(?:::(\w+))?`", shown)
        assert names, claim
        for given, name in names:
            file = given or file
            source = (REPOSITORY / "tests" / file).read_text("utf-8")
            assert not name or f"def {name}(" in source, f"{file}::{name}"
