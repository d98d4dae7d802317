"""Text wrapped between words to the width of a terminal, also where it comes word by word."""

from __future__ import annotations

import os
import re
import shutil
import sys

__all__ = ["Wrapped", "fitted", "width", "wrapped"]

_COMMAND = re.compile(r"(?<=run: )malmm .+")  # to be copied: on one line, however wide
_KEPT = "\ue000"  # stands for its spaces while lines are broken at spaces

_WORDS = re.compile(r"(\s*)(\S+)|\s+")


class Wrapped:
    """Wraps text that comes in pieces of whole words; `width` is in terminal cells."""

    def __init__(self, width: int) -> None:
        self._width, self._column = width, 0
        self._space = ""  # after the last word: the next piece decides whether a line ends there

    def feed(self, piece: str) -> str:
        """The piece, with line breaks in place of the spaces where the line is full."""
        from rich.cells import cell_len

        parts = []
        for found in _WORDS.finditer(piece):
            space, word = self._space + (found[1] or ""), found[2]
            self._space = ""
            if word is None and "\n" not in found[0]:
                self._space = space + found[0]
                continue
            if word is None or "\n" in space:
                parts.append(space + (word or found[0]))
                self._column = cell_len(parts[-1].rpartition("\n")[2])
                continue
            longer = cell_len(space) + cell_len(word)
            if space and self._column and self._column + longer > self._width:
                space, longer = "\n", cell_len(word)
                self._column = 0
            parts.append(space + word)
            self._column += longer
        return "".join(parts)


def wrapped(text: str) -> str:
    """Text for stdout: wrapped if that is a terminal, as it is elsewhere.

    There, tabs become spaces: how wide they are depends on what is before them.
    """
    return fitted(text.replace("\t", "  "), width()) if sys.stdout.isatty() else text


def fitted(text: str, width: int) -> str:
    """Text wrapped to a number of terminal cells; a command to be run stays on one line."""
    if text.isascii() and len(text) <= width:
        return text
    text = _COMMAND.sub(lambda found: found[0].replace(" ", _KEPT), text)
    return Wrapped(width).feed(text).replace(_KEPT, " ")


def width() -> int:
    """The width of the terminal that stdout is, or else stderr; COLUMNS overrides it."""
    try:
        usual = os.get_terminal_size(2)
    except OSError:
        usual = os.terminal_size((80, 24))
    return shutil.get_terminal_size(usual).columns
