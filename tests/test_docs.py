"""docs/commands.md matches `--help`; `python tests/test_docs.py` regenerates it."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "commands.md"
COMMANDS = [
    [],
    *(["caption"], ["ask"], ["remember"], ["batch"], ["frames"], ["convert"], ["doctor"]),
    *(["train"], ["eval"], ["synth"]),
    *(["models"], ["models", "list"], ["models", "pull"], ["models", "info"]),
    *(["cache"], ["cache", "ls"], ["cache", "rm"]),
    *(["bench"], ["bench", "step"], ["bench", "drift"], ["bench", "decode"], ["bench", "model"]),
    *(["bench", "video"], ["bench", "all"]),
]


def help_text(command: list[str]) -> str:
    environment = {**os.environ, "COLUMNS": "100", "PYTHONPATH": str(REPOSITORY)}
    environment.pop("MALMM_MODEL", None)
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


def test_the_command_reference_is_true():
    assert PAGE.read_text("utf-8") == reference(), "run `python tests/test_docs.py`"


def test_every_page_is_in_the_index():
    lines = (PAGE.parent / "index.md").read_text("utf-8").splitlines()
    pages = {path.stem for path in PAGE.parent.glob("*.md")} - {"index"}
    assert not pages - set(lines), "add them to a toctree of docs/index.md"


if __name__ == "__main__":
    PAGE.write_text(reference(), "utf-8")
