"""Errors that users can cause: caught once, by the command line, and printed in one line.

MalmmError
├── UsageError     wrong option, name or value                     exit 2
│   └── ArgumentError  also a TypeError: no such argument, or a value of another type
├── MediaError     a file that cannot be used as a video           exit 2
├── OutputError    a result that cannot be written                 exit 1
├── ModelError     model files missing, broken or of another kind  exit 1
└── CapacityError  too little memory, disk or context              exit 1
"""

from __future__ import annotations

__all__ = [
    *("ArgumentError", "CapacityError", "MalmmError", "MediaError", "ModelError", "OutputError"),
    *("OUTPUT_EXISTS", "UsageError", "first_line"),
]

OUTPUT_EXISTS = "OutputExists"  # the kind of errors about something that is where a result would go


class MalmmError(Exception):
    """`message` says what was given and what is allowed; `hint` what to do next.

    `kind` is the short name that JSON output carries ("NotAVideo"); by default the class's own.
    `option` is the name of the option that had a wrong value, where that need not be a flag's: the
    environment and the config file may have set it.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        kind: str | None = None,
        option: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.kind = kind or type(self).__name__
        self.option = option


class UsageError(MalmmError):
    """A wrong option, name or value."""

    exit_code = 2


class ArgumentError(UsageError, TypeError):
    """A library call has no such argument, or not of this type; a TypeError too, as in Python."""


class MediaError(MalmmError):
    """A file that cannot be used as a video."""

    exit_code = 2


class OutputError(MalmmError):
    """A result that cannot be written."""


class ModelError(MalmmError):
    """Model files that are missing, broken or of another kind."""


class CapacityError(MalmmError):
    """Too little memory, disk or room in the language model's context."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something, or its kind where there is none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    end = next((i for i, line in enumerate(lines, 1) if not line.endswith(":")), len(lines))
    return " ".join(lines[:end]) or type(error).__name__
