"""A terminal of 80 columns: what a command writes to it and when, and what is on it in the end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

# codes that move, erase or only colour
_CODE = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


class Seen(NamedTuple):
    """The exit code, the text as it came, the seconds at which pieces came, and the last screen."""

    code: int
    text: str
    times: list[float]
    lines: list[str]


def on_terminal(program: str, *arguments: str | Path, folder: Path, typed: str = "") -> Seen:
    """Run a Python program with all its streams on a terminal, where something may be `typed`."""
    import pty

    main, terminal = pty.openpty()
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "OMP_NUM_THREADS": "1",
            "TERM": "xterm",
            "COLUMNS": "80",
        },
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    os.write(main, typed.encode())
    told, times = b"", []
    try:
        while piece := os.read(main, 65536):
            told += piece
            times.append(time.monotonic() - begun)
    except OSError:  # Linux says so of a terminal that nobody has open any more
        pass
    os.close(main)
    text = told.decode()
    return Seen(process.wait(), text, times, screen(text))


def screen(text: str) -> list[str]:
    """The lines that are on a terminal, without spaces at their ends and without the empty ones."""
    lines, row, column = [""], 0, 0
    for found in _CODE.finditer(text):
        number, letter, back, down, words = found.groups()
        if letter == "A":
            row = max(row - int(number or 1), 0)
        elif letter == "K":
            lines[row] = "" if number == "2" else lines[row][:column]
        elif back:
            column = 0
        elif down:
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif words:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + words + line[column + len(words) :]
            column += len(words)
    return [line.rstrip() for line in lines if line.strip()]
