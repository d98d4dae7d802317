"""Questions of the command line: `-` stands for those on stdin, one a line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from malmm_cli.errors import UsageError

__all__ = ["LISTED", "with_listed"]

LISTED = "-"


def with_listed(questions: Sequence[str], lines: Iterable[str]) -> list[str]:
    """Questions with those in `lines` in the place of `-`; blank lines are left out.

    Raises UsageError where there are none, for a second `-`, and for lines that are not text.
    """
    if LISTED not in questions:
        return list(questions)
    if questions.count(LISTED) > 1:
        raise UsageError("- can stand for questions only once", hint="give each question once")
    text = "".join(lines).removeprefix("\ufeff")
    if "\0" in text:
        raise UsageError(
            "the questions on stdin are not text in UTF-8", hint="give one question per line"
        )
    listed = [line.strip() for line in text.splitlines() if line.strip()]
    if not listed:
        raise UsageError("no question on stdin", hint="give one question per line")
    place = questions.index(LISTED)
    return [*questions[:place], *listed, *questions[place + 1 :]]
