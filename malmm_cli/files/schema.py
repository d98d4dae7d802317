"""JSON that was read, checked against a declared type: a msgspec struct, a dataclass, a TypedDict.

An error is one line that names the field: "'evidence[1]': must be at least 0". Only structs
with `forbid_unknown_fields=True` refuse fields that they do not declare.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import msgspec

__all__ = ["SchemaError", "Text", "checked"]

T = TypeVar("T")

Text = Annotated[str, msgspec.Meta(pattern=r"\S")]  # not empty

# msgspec's messages → ours; it says where after " - at `$"
_REASONS = (
    (r"Object contains unknown field `(.+)`", r"unknown field '\1'"),
    (r"Object missing required field `(.+)`", r"no '\1'"),
    (r"Expected `str` matching regex .*", "is empty"),
    (r"Integer value out of range", "number out of range"),
    (r"Expected `\w+` of length >= 1", "is empty"),
    (r"Expected `\w+` >= (.+?)(\.0)?", r"must be at least \1"),
    (r"Expected `\w+` <= (.+?)(\.0)?", r"must be at most \1"),
    (r"Expected `\w+` > (.+?)(\.0)?", r"must be above \1"),
    (r"Expected `\w+` < (.+?)(\.0)?", r"must be below \1"),
)
_WORDS = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}
_WORDS |= {"array": "a list", "object": "a JSON object"}


class SchemaError(ValueError):
    """What is wrong with a value: the `field` at fault, "" for the whole, and the `reason`."""

    def __init__(self, field: str, reason: str) -> None:
        is_verb = reason.startswith("is ")
        super().__init__(f"{field!r}{'' if is_verb else ':'} {reason}" if field else reason)
        self.field, self.reason = field, reason


def checked(content: Any, kind: type[T]) -> T:
    """JSON that `strict_json.load` gave, as a `kind`; raises SchemaError where it is not one."""
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        said, _, where = str(error).partition(" - at `$")
        raise SchemaError(where.strip("`."), _reason(said)) from error


def _reason(said: str) -> str:
    """A message of msgspec's in our words."""
    for pattern, reason in _REASONS:
        if found := re.fullmatch(pattern, said):
            return found.expand(reason)
    words = re.sub(r"`(.+?)`", lambda kinds: _in_words(kinds[1]), said)
    return words[:1].lower() + words[1:]


def _in_words(kinds: str) -> str:
    names = kinds.removeprefix("int | ") if "float" in kinds else kinds
    return " or ".join(_WORDS.get(name, name) for name in names.split(" | "))
