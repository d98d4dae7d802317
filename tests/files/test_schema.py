"""What is wrong with JSON is one line that names the field."""

from typing import Annotated

import msgspec
import pytest

from malmm_cli.files.schema import SchemaError, Text, checked
from malmm_cli.files.strict_json import load


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    """A part of what is checked."""

    number: int | float | None = None


class Outer(msgspec.Struct, forbid_unknown_fields=True, rename={"start": "from"}):
    """What is checked."""

    id: int | Text
    names: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)] | None = None
    start: Annotated[float, msgspec.Meta(ge=0, le=9)] | None = None
    inner: Inner | None = None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "no 'id'"),
        ([], "expected a JSON object, got a list"),
        ({"id": None}, "'id': expected a whole number or text, got null"),
        ({"id": True}, "'id': expected a whole number or text, got true or false"),
        ({"id": " "}, "'id' is empty"),
        ({"id": 1, "names": []}, "'names' is empty"),
        ({"id": 1, "names": ["a", 3]}, "'names[1]': expected text, got a whole number"),
        ({"id": 1, "from": -1}, "'from': must be at least 0"),
        ({"id": 1, "from": float("nan")}, "'from': must be at least 0"),
        ({"id": 1, "from": float("inf")}, "'from': must be at most 9"),
        ({"id": 1, "from": 10**400}, "'from': number out of range"),
        ({"id": 1, "start": 1}, "unknown field 'start'"),
        ({"id": 1, "inner": {"a": 1}}, "'inner': unknown field 'a'"),
        (
            {"id": 1, "inner": {"number": "1"}},
            "'inner.number': expected a number or null, got text",
        ),
    ],
)
def test_wrong_values_are_named(content, says):
    with pytest.raises(SchemaError) as caught:
        checked(content, Outer)
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "duplicate key 'a'"),
        ('{"b": {"a": 1, "a": 1}}', "duplicate key 'a'"),
        ("[" * 100_000, "not valid JSON: nested too deeply"),
        ("{", "not valid JSON: "),
        ("9" * 5000, "Exceeds the limit"),
    ],
)
def test_text_that_is_not_clear_json(text, says):
    with pytest.raises(ValueError, match=says):
        load(text)


@pytest.mark.parametrize("text", ["[NaN]", "[-Infinity]", "[1e999]"])
def test_numbers_that_are_not_finite_are_read_unless_refused(text):
    assert len(load(text)) == 1
    with pytest.raises(ValueError, match="is not a finite number"):
        load(text, finite=True)
