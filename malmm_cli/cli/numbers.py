"""Options that take a number, in one wording: what was given, and what is allowed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, cast, get_args, get_type_hints

import typer
from typer.models import OptionInfo

from malmm_cli.errors import UsageError
from malmm_cli.settings import flag

__all__ = ["check_numbers"]


@dataclass(frozen=True)
class _Number:
    """Reads a value as an `int` or a `float` of at least `least`; raises UsageError."""

    option: str
    kind: type[int] | type[float]
    least: float | None
    variable: str | list[str] | None

    @property
    def __name__(self) -> str:
        """What typer shows where an option has no metavar."""
        return self.kind.__name__

    def __call__(self, given: Any) -> int | float:
        """The number that was given, as text, or as what a config file or a default holds."""
        try:
            number = self.kind(given)
        except (ValueError, OverflowError):
            a_number = "a whole number" if self.kind is int else "a number"
            raise UsageError(f"{self._shown(given)}: must be {a_number}") from None
        if self.least is not None and not number >= self.least:  # NaN too
            raise UsageError(f"{self._shown(given)}: must be at least {self.least:g}")
        return number

    def _shown(self, given: Any) -> str:
        text, origin = str(given), self.option
        if isinstance(self.variable, str) and os.environ.get(self.variable) == text:
            origin = self.variable
        short = text if len(text) <= 40 else f"{text[:40]}…"
        return f"{origin} {short or repr(text)}"


def check_numbers(*apps: typer.Typer) -> None:
    """Let the options of all commands of these that take numbers be read as `_Number` does."""
    for app in apps:
        for command in app.registered_commands:
            assert command.callback is not None
            hints = get_type_hints(command.callback, include_extras=True)
            command.callback.__annotations__ = hints  # text would be evaluated anew by typer
            for name, hint in hints.items():
                kind, option, *_ = (*get_args(hint), None, None)
                if isinstance(option, OptionInfo) and (number := _kind(kind)):
                    option.parser = _Number(_flag(name, option), number, option.min, option.envvar)


def _kind(annotation: Any) -> type[int] | type[float] | None:
    """The kind of number among "int", "int | None", "list[int]" and "list[int] | None"."""
    if annotation in (int, float):
        return cast("type[int] | type[float]", annotation)
    return next(filter(None, map(_kind, get_args(annotation))), None)


def _flag(name: str, option: OptionInfo) -> str:
    """What an option is called on the command line."""
    long = [text for text in option.param_decls or () if text.startswith("--")]
    return long[0] if long else flag(name)
