"""Makes docs/malmm.1, the man page, from the help of every command; `make pages` writes it."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["man_page"]


def man_page(helps: Mapping[str, str]) -> str:
    """The page in roff; `helps` is the help of each command by its name, "malmm" first."""
    parts = [
        '.TH MALMM 1 "" "malmm" "User Commands"',
        ".SH NAME",
        "malmm \\- caption long videos and answer questions about them",
    ]
    for name, text in helps.items():
        parts += [f".SH {_escaped(name.upper())}", ".nf"]
        parts += map(_escaped, text.splitlines())
        parts += [".fi"]
    return "\n".join(parts) + "\n"


def _escaped(line: str) -> str:
    """A line that roff takes for text only."""
    line = line.replace("\\", "\\e").replace("-", "\\-")
    line = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in line)
    return f"\\&{line}" if line.startswith((".", "'")) else line
