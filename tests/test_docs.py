"""The generated files of docs/, which `make pages` writes.

commands.md and malmm.1 are what `--help` says, code.md the first line of every module's docstring.
"""

import ast
import contextlib
import importlib.util
import io
import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import typer

from malmm_cli import cli

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "commands.md"
MAN = REPOSITORY / "docs" / "malmm.1"
CODE = REPOSITORY / "docs" / "code.md"


def commands(command: Any, *above: str) -> Iterator[list[str]]:
    """The words of a command and of all below it."""
    yield [*above]
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, *above, name)


COMMANDS = list(commands(typer.main.get_command(cli.app)))


def help_text(command: list[str], columns: int = 100) -> str:
    """The help of a command, as nobody's settings change it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALMM_")}
    environment |= {"COLUMNS": str(columns), "XDG_CONFIG_HOME": os.devnull}
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        contextlib.redirect_stdout(io.StringIO()) as printed,
    ):
        assert cli.run([*command, "--help"]) == 0
    return "\n".join(line.rstrip() for line in printed.getvalue().strip().splitlines())


def reference() -> str:
    parts = ["# Commands\n\nGenerated from `malmm COMMAND --help`.\n"]
    for command in COMMANDS:
        name = " ".join(["malmm", *command])
        parts.append(f"## {name}\n\n```\n{help_text(command)}\n```\n")
    return "\n".join(parts)


def code_map() -> str:
    """A table of the package's files for each folder, folders after the files beside them."""
    package = REPOSITORY / "malmm_cli"
    parts = [
        "# Map of the code\n\nThe files of `malmm_cli`, one line each; a test keeps it true.\n"
    ]
    for folder in sorted({path.parent for path in package.rglob("*.py")}):
        name = folder.relative_to(REPOSITORY).as_posix()
        rows = [f"## {name}\n", "| file | what it does |", "|---|---|"]
        rows += [f"| `{path.name}` | {summary(path)} |" for path in sorted(folder.glob("*.py"))]
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def summary(path: Path) -> str:
    """The first line of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return docstring.partition("\n")[0].replace("|", "\\|")


def script(name: str) -> Any:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, PAGE.with_name(f"{name}.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawings() -> dict[str, str]:
    return script("drawing").drawings()


def man_page() -> str:
    helps = {" ".join(["malmm", *command]): help_text(command, 76) for command in COMMANDS}
    return script("man").man_page(helps)


def test_the_command_reference_is_true():
    assert PAGE.read_text("utf-8") == reference(), "run `make pages`"


def test_the_man_page_is_true():
    assert MAN.read_text("utf-8") == man_page(), "run `make pages`"


def test_the_man_page_is_installed_where_man_looks():
    wheel = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]
    shared = wheel["build"]["targets"]["wheel"]["shared-data"]
    assert shared == {"docs/malmm.1": "share/man/man1/malmm.1"}


@pytest.mark.skipif(not shutil.which("groff"), reason="no groff")
def test_the_man_page_is_valid():
    command = ["groff", "-man", "-Tutf8", "-ww", "-z", str(MAN)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_the_map_of_the_code_is_true():
    assert CODE.read_text("utf-8") == code_map(), "run `make pages`"


def test_every_file_says_what_it_does_in_one_line():
    package = REPOSITORY / "malmm_cli"
    found = [path for path in package.rglob("*.py") if not summary(path).endswith(".")]
    assert not found, "the docstring's first line is not one sentence"


def test_the_drawing_is_what_its_script_makes():
    for name, content in drawings().items():
        assert PAGE.with_name(name).read_text("utf-8") == content, "run `make pages`"
        assert len(content) < 30_000


def test_every_page_is_in_the_index():
    lines = (PAGE.parent / "index.md").read_text("utf-8").splitlines()
    pages = {path.stem for path in PAGE.parent.glob("*.md")} - {"index"}
    assert not pages - set(lines), "add them to a toctree of docs/index.md"


if __name__ == "__main__":
    PAGE.write_text(reference(), "utf-8")
    MAN.write_text(man_page(), "utf-8")
    CODE.write_text(code_map(), "utf-8")
    for name, content in drawings().items():
        PAGE.with_name(name).write_text(content, "utf-8")
