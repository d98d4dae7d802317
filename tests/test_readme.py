"""What README, docs/python.md and examples/ show, run as a reader would run it, in an own folder.

```console blocks: lines that begin with `$ ` are commands; those that need neither network nor
a large model are run by the shell. ```python blocks are all run, and so are the scripts of
examples/, by the indented commands of their docstrings.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
README = REPOSITORY / "README.md"

RUNNABLE = re.compile(r"^malmm (.*--(model[ =]tiny|version|help)\b|frames\b|models\b(?! pull))")
SHELL = 'malmm() { python -m malmm_cli "$@"; }\npython() { "$PYTHON" "$@"; }\n'


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """The commands of all console blocks; a line that ends in a backslash goes on in the next."""
    console = "".join(blocks(text, "console")).replace("\\\n", " ")
    return [line[2:].split("  #")[0].strip() for line in console.splitlines() if line[:2] == "$ "]


def usage(script: Path) -> str:
    """The indented commands of a script's docstring."""
    docstring = ast.get_docstring(ast.parse(script.read_text("utf-8"))) or ""
    return "\n".join(line for line in docstring.splitlines() if line.startswith("    "))


TEXT = README.read_text("utf-8") if README.exists() else ""
RUN = [command for command in commands(TEXT) if RUNNABLE.search(command)]
PYTHON = blocks(TEXT, "python")
PAGE = blocks((REPOSITORY / "docs" / "python.md").read_text("utf-8"), "python")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all, so that a command finds what the one before it wrote."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(REPOSITORY / "examples", folder / "examples")
    return folder


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess:
    path = {"PYTHONPATH": str(REPOSITORY), "PYTHON": sys.executable, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        arguments,
        cwd=folder,
        env={**os.environ, **path},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_the_readme_has_something_to_run():
    assert README.exists(), "there is no README.md"
    assert RUN, "README.md has no ```console block with a `$ malmm … --model tiny`"
    assert PYTHON, "README.md has no ```python block"
    assert len(PAGE) > 4, "docs/python.md has few ```python blocks"


@pytest.mark.parametrize("command", RUN)
def test_commands(command, folder):
    done = run(["sh", "-c", SHELL + command], folder)
    assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("code", [*PYTHON, *PAGE])
def test_python(code, folder):
    done = run([sys.executable, "-c", code], folder)
    assert done.returncode == 0, f"{code}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("script", sorted(REPOSITORY.glob("examples/*.py")), ids=lambda p: p.name)
def test_examples(script, folder):
    commands = usage(script)
    assert f"python examples/{script.name}" in commands
    done = run(["sh", "-ec", SHELL + commands], folder)
    assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"


def test_which_commands_are_run():
    text = "\n".join(
        [
            "```console",
            "$ make demo",
            "$ malmm caption a.mp4 --model tiny  # the bundled one",
            "a caption",
            "$ malmm caption a.mp4",
            "$ malmm ask a.mp4 'what?' \\",
            "    --model tiny",
            "```",
            "```sh",
            "$ malmm --version",
            "```",
        ]
    )
    assert [command for command in commands(text) if RUNNABLE.search(command)] == [
        "malmm caption a.mp4 --model tiny",
        "malmm ask a.mp4 'what?'      --model tiny",
    ]
