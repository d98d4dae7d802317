"""The config file: defaults of options that a person fixes once.

A value comes from its flag, else its environment variable (MALMM_ and the key in capitals), else
the config file, else the option's default.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import typer

from malmm_cli.errors import OutputError, UsageError
from malmm_cli.text.words import nearest

__all__ = ["KEYS", "Origin", "defaults", "origin_of", "origins", "path", "read", "write"]

# key → type, and its default as people are shown it
KEYS: dict[str, tuple[type, Any]] = {
    "model": (str, "vicuna-7b"),
    "device": (str, "auto"),
    "dtype": (str, "auto"),
    "quantize": (str, None),
    "cache": (str, None),
    "cache_size": (float, 20.0),
    "offline": (bool, False),
    "color": (str, "auto"),
    "no_progress": (bool, False),
}
_TRUE = ("1", "ON", "YES", "TRUE")  # as the client of the Hub reads its variables
_WORDS = {str: "text", float: "a number of at least 0", bool: "true or false"}


@dataclass(frozen=True)
class Origin:
    """A key's value and where it comes from: an environment variable, the file, or "default"."""

    key: str
    value: Any
    origin: str

    def __str__(self) -> str:
        """What messages call the origin: "MALMM_MODEL", "'model' in FILE"."""
        return f"{self.key!r} in {self.origin}" if self.origin == str(path()) else self.origin


def path() -> Path:
    """Where the config file is, or would be."""
    if base := os.environ.get("XDG_CONFIG_HOME"):
        return Path(base, "malmm", "config.toml")
    return Path(typer.get_app_dir("malmm"), "config.toml")


def read() -> dict[str, Any]:
    """The file's values by key, {} without a file.

    Raises UsageError, which names the file and the key, for what it must not hold.
    """
    file = path()
    try:
        status = file.stat()
        return dict(_content(file, status.st_mtime_ns, status.st_size))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from error


@lru_cache(maxsize=1)  # several parts of a command ask for it
def _content(file: Path, _changed: int, _size: int) -> dict[str, Any]:
    """The checked values of a file, read again only after it has changed."""
    import tomllib

    content = file.read_bytes()
    try:
        values = tomllib.loads(content.decode())
    except ValueError as error:  # not UTF-8, or not TOML
        hint = "correct the file, or remove it for the defaults"
        raise UsageError(f"{file}: not valid TOML: {error}", hint=hint) from error
    for key, value in values.items():
        _check(file, key, value)
    return values


def _check(file: Path, key: str, value: Any) -> None:
    if key not in KEYS:
        meant = nearest(key.replace("-", "_"), KEYS)
        raise UsageError(f"{file}: unknown key {key!r}", hint=f"{meant}one of {', '.join(KEYS)}")
    kind = KEYS[key][0]
    allowed = (int, float) if kind is float else (kind,)
    wrong = not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool)
    if wrong or (kind is float and not value >= 0):
        raise UsageError(f"{file}: {key!r} must be {_WORDS[kind]}, not {value!r}")
    if value == "":
        raise UsageError(f"{file}: {key!r} is empty", hint="remove the line for the default")


def defaults(command: Any) -> dict[str, Any]:
    """The file's values as Click's `default_map`, which gives each command its own mapping."""
    values = read()
    return _for(command, values) if values else {}


def _for(command: Any, values: dict[str, Any]) -> dict[str, Any]:
    below = getattr(command, "commands", {})
    return {**values, **{name: _for(one, values) for name, one in below.items()}}


def origins() -> Iterator[Origin]:
    """Each key's value where no flag is given, and where it comes from."""
    values, file = read(), path()
    for key, (_, default) in KEYS.items():
        variable = f"MALMM_{key.upper()}"
        if key == "offline" and _is_hub_offline():
            yield Origin(key, True, "HF_HUB_OFFLINE")
        elif os.environ.get(variable):
            yield Origin(key, os.environ[variable], variable)
        elif key == "color" and (found := _color_variable()):
            yield Origin(key, "never" if found == "NO_COLOR" else "always", found)
        elif key in values:
            yield Origin(key, values[key], str(file))
        else:
            yield Origin(key, default, "default")


def origin_of(key: str) -> Origin:
    """That of one key."""
    return next(one for one in origins() if one.key == key)


def _is_hub_offline() -> bool:
    """Whether only the variable of the Hub's client keeps the network from being used."""
    asked = os.environ.get("MALMM_OFFLINE", "").upper() not in ("", "0", "OFF", "NO", "FALSE")
    return not asked and os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE


def _color_variable() -> str | None:
    """The variable that decides about colours, if there is one; "0" forces nothing."""
    if os.environ.get("NO_COLOR"):
        return "NO_COLOR"
    forced = ("FORCE_COLOR", "CLICOLOR_FORCE")
    return next((name for name in forced if os.environ.get(name, "0") not in ("", "0")), None)


def write(key: str, value: str) -> Path:
    """Set a key to a text in the config file; returns the file.

    All else in it stays as it is: other lines, the comment behind the value, ends of lines. Where
    the file is a link, the file that it leads to changes. Raises UsageError for a file that is
    wrong already, or where the line cannot be found; OutputError if it cannot be written.
    """
    from malmm_cli.files.atomic import new_file

    values, file = read(), path()
    text = file.read_bytes().decode() if file.exists() else ""
    changed = _with_line(text, key, value)
    if not _holds(changed, {**values, key: value}):
        raise UsageError(
            f"{file}: {key!r} is set in a form that cannot be changed safely",
            hint=f"write {key} = {_quoted(value)} there yourself",
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{file.parent}: cannot be created: {error.strerror}") from error
    with new_file(file.resolve()) as target:
        target.write(changed.encode())
    return file


def _with_line(text: str, key: str, value: str) -> str:
    """The text of a config file with the line of a key changed, or added at the end."""
    import re

    line = re.compile(
        rf"""(?m)^(?P<before>[ \t]*["']?{key}["']?[ \t]*=[ \t]*)"""
        r"""(?:"(?:[^"\\\r\n]|\\.)*"|'[^'\r\n]*'|[^"'#\r\n]*?)"""
        r"""(?P<after>[ \t]*(?:\#[^\r\n]*)?\r?)$"""
    )
    changed, found = line.subn(lambda m: f"{m['before']}{_quoted(value)}{m['after']}", text, 1)
    if found:
        return changed
    end = "\r\n" if "\r\n" in text else "\n"
    joint = end if text and not text.endswith("\n") else ""
    return f"{text}{joint}{key} = {_quoted(value)}{end}"


def _holds(text: str, values: dict[str, Any]) -> bool:
    """Whether a text is TOML of these values."""
    import tomllib

    try:
        return tomllib.loads(text) == values
    except ValueError:
        return False


def _quoted(value: str) -> str:
    """A text as TOML has it: JSON's form, but for one more character that it escapes."""
    import json

    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
