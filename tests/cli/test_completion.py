"""Completion in real shells: what Tab offers, and that it is quick."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.screen import on_terminal

from malmm_cli.hub.registry import KNOWN

REPOSITORY = Path(__file__).parents[2]
CASES = [
    ("malmm capt", {"caption"}),
    ("malmm caption --model ti", {"tiny"}),
    ("malmm caption --model vic", {"vicuna-7b", "vicuna-13b"}),
    ("malmm ask v.mp4 q --policy f", {"fifo"}),
    ("malmm caption --format js", {"json", "jsonl"}),
    ("malmm models info fl", {"flan-t5-xl", "flan-t5-xxl"}),
    ("malmm models use ti", {"tiny"}),
    ("malmm models pull ", {name for name, known in KNOWN.items() if known.repository}),
    ("malmm eval x --format-in msv", {"msvd-qa", "msvd-cap"}),
    ("malmm --color al", {"always"}),
    ("malmm cache l", {"list"}),
    ("malmm help ba", {"batch"}),
    ("malmm help models pu", {"pull"}),
]

needs = {s: pytest.mark.skipif(not shutil.which(s), reason=f"no {s}") for s in ("bash", "zsh")}
needs["fish"] = pytest.mark.skipif(not shutil.which("fish"), reason="no fish")


@pytest.fixture
def shell(tmp_path):
    """Runs lines of a shell, in which `malmm` is this one."""
    program = tmp_path / "bin" / "malmm"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from malmm_cli.__main__ import main\nmain()\n"
    )
    program.chmod(0o755)
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
    }

    def run(*command):
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    return run


@needs["bash"]
@pytest.mark.parametrize(("line", "expected"), CASES)
def test_bash(shell, line, expected):
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    script = (
        f'eval "$(malmm --show-completion)"; COMP_WORDS=({quoted}); '
        f"COMP_CWORD={len(words) - 1}; _malmm_completion malmm; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert {*shell("bash", "--norc", "-c", script).split()} == expected


@needs["zsh"]
@pytest.mark.parametrize(("line", "expected"), CASES)
def test_zsh(shell, line, expected):
    words = " ".join(f"'{word}'" for word in line.split(" "))
    script = (
        "compdef() { }; _files() { print none; }\n"
        # the last argument is '*: :((value:help …))'
        '_arguments() { print -r -- "${1#*\\(\\(}"; }\n'
        f'eval "$(malmm --show-completion)"; words=({words}); CURRENT=$#words; '
        "_malmm_completion"
    )
    offered = re.findall(r'"([^":]+)"(?::"[^"]*")?', shell("zsh", "-f", "-c", script))
    assert {*offered} == expected


@needs["fish"]
@pytest.mark.parametrize(("line", "expected"), CASES)
def test_fish(shell, line, expected):
    script = f"malmm --show-completion | source; complete -C {line!r}"
    offered = shell("fish", "--no-config", "-c", script).splitlines()
    assert {one.split("\t")[0] for one in offered} == expected


@needs["bash"]
def test_installing(shell, tmp_path):
    shell("bash", "--norc", "-c", "malmm --install-completion; true")
    assert "_MALMM_COMPLETE" in (tmp_path / ".bash_completions" / "malmm.sh").read_text()


@needs["bash"]
def test_installing_on_a_terminal_shows_no_escapes(shell, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]))
    line = ["bash", "--norc", "-c", "malmm --install-completion; true"]
    seen = on_terminal(f"import subprocess; subprocess.run({line})", folder=tmp_path)
    assert seen.lines[0].startswith("bash completion installed in ")


def test_folders_are_models_too(tmp_path, monkeypatch):
    from malmm_cli.cli.completion import models

    monkeypatch.chdir(tmp_path)
    (tmp_path / "trained").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "text").write_text("")
    assert models("t") == ["tiny", "trained/"]
    assert "trained/" in models("")
    assert ".hidden/" not in models("")
    assert models("no/such/") == []


@pytest.mark.parametrize("line", ["malmm caption --model t", "malmm eval x --format-in msv"])
def test_completion_imports_nothing_heavy(line):
    code = (
        "import sys, atexit\n"
        "from malmm_cli import cli\n"
        "cli.run([])\n"
        "print(*{'torch', 'transformers', 'av', 'numpy'} & {*sys.modules}, file=sys.stderr)\n"
    )
    words = line.split()
    environment = {**os.environ, "_MALMM_COMPLETE": "complete_bash", "COMP_WORDS": line}
    environment |= {"COMP_CWORD": str(len(words) - 1), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()
    assert not done.stderr.split(), f"Tab would wait for {done.stderr}"


def test_an_unknown_shell(refused, monkeypatch):
    import shellingham

    monkeypatch.setattr(shellingham, "detect_shell", lambda: ("tcsh", "/bin/tcsh"))
    refused("--show-completion", code=2, says="no completion for the shell tcsh", hint="bash")
