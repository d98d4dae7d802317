"""What every public call does: arguments are checked by name, errors speak of them as Python does.

Messages name options as the command line writes them. `in_python` is the one place where they
become arguments: "--max-new-tokens 0" is `max_new_tokens=0` there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, TypeVar

from malmm_cli.errors import ArgumentError, MalmmError
from malmm_cli.events import Events
from malmm_cli.settings import BANKS, DECODERS, POLICIES
from malmm_cli.settings.arguments import check_names, check_types, hints, kinds

__all__ = ["in_python", "public"]

Call = TypeVar("Call", bound=Callable[..., Any])

# options whose arguments are called otherwise
_NAMES = {
    "-o": "output",
    "--from": "start",
    "--to": "end",
    "--ask": "questions",
    "--format-in": "format",
}
_SWITCHES = {
    "--no-cache": "keep_features=False",
    **{f"--{name}": f"{name.replace('-', '_')}=True" for name in ("overwrite", "retry-failed")},
}
# what commands are called here, and the names of arguments in their usage
_PHRASES = {
    "the --max-… options of `malmm batch`": "limits=Limits(…)",
    "another file with -o": "another file",  # which argument names it, differs
    "malmm remember VIDEO -o FILE": "malmm_cli.remember(video).write(file)",
    r"`malmm batch (.+)`": r'malmm_cli.batch.run("\1", …)',
    "no INPUT is one": "no input is one",
    "is the DATA file": "is the data file",
    "run the same command": "make the same call",
    "rerun the same `malmm train`": "make the same call of malmm_cli.train.run",
}
# how a model runs, which is decided when it is loaded
_LOADING = ("device", "dtype", "quantize", "offline")
_WORDS = (
    *(*DECODERS, *POLICIES, *BANKS, "float32", "bfloat16", "float16", "8bit", "4bit"),
    *("cpu", "mps", r"cuda(?::\d+)?"),
)
_OPTION = re.compile(
    r"""(?<!\w)(?P<quoted>'[^']*'|"[^"]*")"""
    r"|(?<![\w/\\-])(?P<option>--[a-z]+(?:-[a-z]+)*|-o\b)"
    r"(?: (?:(?P<number>-?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|inf|nan)\b)"
    rf"|(?P<word>(?:{'|'.join(_WORDS)})\b|[^\s:]+(?=:(?:\s|$))|(?<=--model )[^\s,]+)))?"
)


def public(call: Call, name: str | None = None) -> Call:
    """Return a call that checks its arguments first; `name` is what callers know it by.

    A wrong one is an ArgumentError, and errors name arguments in place of options. The signature
    has every keyword by its name, for `help` and for the completion of notebooks.
    """
    shown, form = f"{name or call.__name__}()", signature(call)

    @wraps(call)
    def checked(*positional: Any, **named: Any) -> Any:
        with _in_python():
            _check(shown, call, form, positional, named)
            found = call(*positional, **named)
        return _iterated(found) if isinstance(found, Generator) else found

    # where callers find it, and pickle too
    checked.__module__ = ".".join(["malmm_cli", *shown.split(".")[:-1]])
    checked.__signature__ = _spelled_out(form, hints(call))  # type: ignore[attr-defined]
    return checked  # type: ignore[return-value]


class _Default:
    """Stands for the default of a keyword that may be left out: that of the model, or none."""

    def __repr__(self) -> str:
        return "<default>"


def _spelled_out(form: Signature, annotations: Mapping[str, Any]) -> Signature:
    """The signature with `annotations` and a parameter for each keyword that ** stands for."""
    own = [p for p in form.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
    spelled = [p.replace(annotation=annotations.get(p.name, p.annotation)) for p in own]
    for name in [name for name in annotations if name not in form.parameters]:
        kind, default = Parameter.KEYWORD_ONLY, _Default()
        spelled.append(Parameter(name, kind, default=default, annotation=annotations[name]))
    return form.replace(parameters=spelled)


def _check(
    shown: str,
    call: Callable[..., Any],
    form: Signature,
    positional: tuple[Any, ...],
    named: dict[str, Any],
) -> None:
    known = {name: kind for name, kind in kinds(call).items() if name != "self"}
    if "model" in known and (name := next((n for n in _LOADING if n in {*named} - {*known}), None)):
        hint = f"load() has it: model=malmm_cli.load(name, {name}=…)"
        raise ArgumentError(f"{shown} has no setting {name!r}", hint=hint)
    check_names(shown, named, known)
    try:
        given = form.bind(*positional, **named).arguments
    except TypeError as error:
        raise ArgumentError(f"{shown}: {error}") from None
    for name, parameter in form.parameters.items():
        if parameter.kind is Parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
    check_types({name: value for name, value in given.items() if name in known}, known)
    if "events" in given and not isinstance(given["events"], Events):
        raise ArgumentError(f"events must be malmm_cli.Events, not {given['events']!r}")


@contextmanager
def _in_python() -> Iterator[None]:
    try:
        yield
    except MalmmError as error:
        error.message = in_python(error.message)
        error.hint = error.hint and in_python(error.hint)
        error.args = (error.message,)
        note = f"hint: {error.hint}"  # which a traceback shows below the message
        if error.hint and note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise


def _iterated(found: Generator[Any]) -> Iterator[Any]:
    with _in_python():
        yield from found


def in_python(text: str) -> str:
    """A message with arguments in place of the command line's options; quoted text stays."""
    for phrase, meant in _PHRASES.items():
        text = re.sub(phrase, meant, text)
    text = _OPTION.sub(_argument, text)
    text = re.sub(rf'="([^"]*)" or ({"|".join(_WORDS)})\b', r'="\1" or "\2"', text)
    return re.sub(r'(\w=(?:"[^"]*"|[\d.]+)) (?=\w+=)', r"\1, ", text)


def _argument(found: re.Match[str]) -> str:
    if found["quoted"]:
        return found["quoted"]
    option, number, word = found["option"], found["number"], found["word"]
    if option in _SWITCHES and word is None:
        return _SWITCHES[option]
    name = _NAMES.get(option) or option[2:].replace("-", "_")
    if number is not None:
        return f"{name}={number}"
    return name if word is None else f'{name}="{word}"'
