"""Questions of the command line: `-` stands for those on stdin, one a line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from malmm_cli.errors import UsageError
from malmm_cli.text.encodings import LONGEST, check_encoding, pieces

__all__ = ["LISTED", "with_listed"]

LISTED = "-"


def with_listed(questions: Sequence[str], lines: Iterable[str]) -> list[str]:
    """Questions with those in `lines` in the place of `-`; blank lines are left out.

    The lines may be in UTF-8, or in UTF-16 with a byte order mark. Raises UsageError where there
    are none, for a second `-`, and for lines that are not text.
    """
    if LISTED not in questions:
        return list(questions)
    if questions.count(LISTED) > 1:
        raise UsageError("- can stand for questions only once", hint="give each question once")
    text = "\n".join(pieces(lines, "\n"))
    check_encoding(text[:LONGEST])
    if any("\ud800" <= letter <= "\udfff" for letter in text):  # bytes that are not UTF-8
        raise UsageError(
            "stdin is neither UTF-8 nor UTF-16 with a byte order mark",
            hint="convert it, for example: iconv -f LATIN1 -t UTF-8",
        )
    if "\0" in text:
        raise UsageError("the questions on stdin are not text", hint="give one question per line")
    listed = [line.strip() for line in text.splitlines() if line.strip()]
    if not listed:
        raise UsageError("no question on stdin", hint="give one question per line")
    if max(map(len, listed)) >= LONGEST:
        raise UsageError(
            f"a question on stdin has more than {LONGEST} characters",
            hint="give one question per line",
        )
    index = questions.index(LISTED)
    return [*questions[:index], *listed, *questions[index + 1 :]]
