"""Arguments of library calls: their names and types, compared with the call's own annotations."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import cache, wraps
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Unpack, get_args, get_origin, get_type_hints

from malmm_cli.errors import ArgumentError

__all__ = ["check_names", "check_types", "hints", "kinds", "plain", "shown", "strict"]

Class = TypeVar("Class")
Kinds = Mapping[str, tuple[Any, ...]]

# the names of options whose arguments are called otherwise
_MEANS = {"from": "start", "from_": "start", "to": "end", "to_": "end"}
# arguments that stand for more than their types say
_MEANT = dict.fromkeys(("model", "name"), "a model's name or its folder")
_CALLED = {str: "text", int: "an integer", float: "a number", bool: "True or False", Path: "a path"}


@cache
def hints(annotated: Any) -> Mapping[str, Any]:
    """The annotation of each argument of a call, or key of a TypedDict.

    Keyword arguments that a call declares as `**options: Unpack[Options]` are among them.
    """
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(annotated).items():
        if get_origin(hint) is Unpack:
            found |= hints(get_args(hint)[0])
        elif name != "return":
            found[name] = hint
    return found


@cache
def kinds(annotated: Any) -> Kinds:
    """The types that each of `hints` allows."""
    found = hints(annotated).items()
    return {name: get_args(h) if isinstance(h, UnionType) else (h,) for name, h in found}


def check_names(call: str, names: Collection[str], known: Collection[str]) -> None:
    """Raise ArgumentError for a keyword argument that a call does not have."""
    for name in names:
        if name not in known:
            near = get_close_matches(name, list(known), n=1)
            if _MEANS.get(name) in known:
                near = [_MEANS[name]]
            meant = f"; did you mean {near[0]!r}?" if near else ""
            hint = None if near else f"known: {', '.join(known)}"
            raise ArgumentError(f"{call} has no setting {name!r}{meant}", hint=hint)


def plain(value: Any) -> Any:
    """A number of another library as Python's own; any other value as it is."""
    if isinstance(value, int | float) and not hasattr(value, "item"):  # NumPy's float64 is a float
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def strict(cls: type[Class]) -> type[Class]:
    """Have a class refuse keyword arguments that it lacks by an ArgumentError.

    Numbers become Python's own.
    """
    changeable: Any = cls
    build = changeable.__init__
    known = [name for name in build.__annotations__ if name != "return"]

    @wraps(build)
    def checked(self: object, *positional: Any, **named: Any) -> None:
        check_names(f"{cls.__name__}()", named, known)
        build(self, *map(plain, positional), **{n: plain(value) for n, value in named.items()})

    changeable.__init__ = checked
    return cls


def check_types(values: Mapping[str, Any], known: Kinds) -> None:
    """Raise ArgumentError for a value of another type than `kinds` says.

    Only numbers, text, paths and None are compared.
    """
    for name, value in values.items():
        allowed = known[name]
        if not {*allowed} <= {*_CALLED, NoneType}:
            continue
        types = (*allowed, *([int] if float in allowed else []))
        types += (os.PathLike,) if Path in allowed else ()
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in allowed):
            named = [kind for kind in allowed if not (kind is str and Path in allowed)]
            wanted = " or ".join(_CALLED.get(kind, "None") for kind in named)
            wanted = _MEANT.get(name, wanted)
            raise ArgumentError(f"{name} must be {wanted}, not {shown(value)}")


def shown(value: object) -> str:
    """A value as Python writes it; of our own classes, whose objects are long, only the name."""
    own = type(value).__module__.startswith("malmm_cli.")
    return f"a {type(value).__name__} object" if own else repr(value)
