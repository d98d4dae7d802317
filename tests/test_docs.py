"""The generated files of docs/: commands.md, code.md and the drawing; `make pages` writes them.

commands.md is what `--help` says, code.md the first line of every module's docstring.
"""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "commands.md"
CODE = REPOSITORY / "docs" / "code.md"
COMMANDS = [
    [],
    *(["caption"], ["ask"], ["remember"], ["batch"], ["frames"], ["convert"], ["doctor"]),
    *(["train"], ["eval"], ["synth"]),
    *(["models"], ["models", "list"], ["models", "pull"], ["models", "info"], ["models", "use"]),
    ["help"],
    *(["cache"], ["cache", "list"], ["cache", "rm"]),
    *(["bench"], ["bench", "step"], ["bench", "drift"], ["bench", "decode"], ["bench", "model"]),
    *(["bench", "video"], ["bench", "all"]),
]


def help_text(command: list[str]) -> str:
    environment = {**os.environ, "COLUMNS": "100", "PYTHONPATH": str(REPOSITORY)}
    environment = {k: v for k, v in environment.items() if not k.startswith("MALMM_")}
    environment["XDG_CONFIG_HOME"] = os.devnull
    done = subprocess.run(
        [sys.executable, "-m", "malmm_cli", *command, "--help"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


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


def drawings() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("drawing", PAGE.with_name("drawing.py"))
    assert spec
    assert spec.loader
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    return drawing.drawings()


def test_the_command_reference_is_true():
    assert PAGE.read_text("utf-8") == reference(), "run `make pages`"


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
    CODE.write_text(code_map(), "utf-8")
    for name, content in drawings().items():
        PAGE.with_name(name).write_text(content, "utf-8")
