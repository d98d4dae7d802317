"""What every public call does: arguments are checked by name, errors speak of them as Python does.

Messages name options as the command line writes them. `in_python` is the one place where they
become arguments: "--max-new-tokens 0" is `max_new_tokens=0` there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from functools import wraps
from inspect import BoundArguments, Parameter, Signature, signature
from pathlib import Path
from typing import Any, TypeVar

from malmm_cli.errors import ArgumentError, MalmmError
from malmm_cli.events import Events, Forwarding
from malmm_cli.settings import BANKS, DECODERS, POLICIES
from malmm_cli.settings.arguments import check_names, check_types, hints, kinds, plain

__all__ = ["Translated", "in_python", "public"]

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
    "`malmm batch`": "malmm_cli.batch.run",
    r"`malmm batch (.+)`": r'malmm_cli.batch.run("\1", …)',
    "no INPUT is one": "no input is one",
    "is the DATA file": "is the data file",
    "run the same command": "make the same call",
    "or --beside": "or beside=True",
    "rerun the same `malmm train`": "make the same call of malmm_cli.train.run",
}
# how a model runs, which is decided when it is loaded
_LOADING = ("device", "dtype", "quantize", "offline")
_WORDS = (
    *(*DECODERS, *POLICIES, *BANKS, "float32", "bfloat16", "float16", "8bit", "4bit"),
    *("cpu", "mps", r"cuda(?::\d+)?"),
)
_QUOTED = r"""(?<!\w)(?:'[^']*'|"[^"]*")"""
_OPTION = re.compile(
    r"(?<![\w/\\-])(?P<option>--[a-z]+(?:-[a-z]+)*|-o\b)"
    r"(?: (?:(?P<time>(?:(?<=--from )|(?<=--to ))"  # of anything but a number
    r"(?!-?\d+(?:\.\d+)?(?![\w.]|:\S))(?=\S*\d)[^\s,]*[^\s,:])"
    r"|(?P<number>-?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|inf|nan)\b)"
    rf"|(?P<word>(?:{'|'.join(_WORDS)})\b|[^\s:]+(?=:(?:\s|$))|(?<=--model )[^\s,]+"
    r"|(?<=-o )(?:FILE\.[a-z]+|FOLDER/))))?"
)


def public(call: Call, name: str | None = None) -> Call:
    """Return a call that checks its arguments first; `name` is what callers know it by.

    A wrong one is an ArgumentError, and errors name arguments in place of options. The signature
    has every keyword by its name, for `help` and for the completion of notebooks.
    """
    shown, form = f"{name or call.__name__}()", signature(call)

    @wraps(call)
    def checked(*positional: Any, **named: Any) -> Any:
        texts = _texts([*positional, *named.values()])
        with _in_python(texts):
            given = _checked(shown, call, form, positional, named)
            if "events" in given.arguments:
                given.arguments["events"] = Translated(given.arguments["events"], texts)
            found = call(*given.args, **given.kwargs)
            for error in getattr(found, "errors", {}).values():  # of a batch that has ended
                _translate(error, texts)
        return _iterated(found, texts) if isinstance(found, Generator) else found

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


def _checked(
    shown: str,
    call: Callable[..., Any],
    form: Signature,
    positional: tuple[Any, ...],
    named: dict[str, Any],
) -> BoundArguments:
    known = {name: kind for name, kind in kinds(call).items() if name != "self"}
    if "model" in known and (name := next((n for n in _LOADING if n in {*named} - {*known}), None)):
        hint = f"load() has it: model=malmm_cli.load(name, {name}=…)"
        raise ArgumentError(f"{shown} has no setting {name!r}", hint=hint)
    check_names(shown, named, known)
    numbers = {name: plain(value) for name, value in named.items()}
    try:
        bound = form.bind(*map(plain, positional), **numbers)
    except TypeError as error:
        raise ArgumentError(f"{shown}: {error}") from None
    given = {**bound.arguments}
    for name, parameter in form.parameters.items():
        if parameter.kind is Parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
    check_types({name: value for name, value in given.items() if name in known}, known)
    if "events" in given and not isinstance(given["events"], Events):
        raise ArgumentError(f"events must be malmm_cli.Events, not {given['events']!r}")
    return bound


def _texts(values: Iterable[object]) -> tuple[str, ...]:
    """Texts and paths among the arguments of a call that `in_python` must not change."""
    found = []
    for value in values:
        if isinstance(value, str | os.PathLike):
            text = os.fsdecode(value)
            found += [t for t in (text, str(Path(text))) if t and _translated(t) != t]
        elif isinstance(value, list | tuple):
            found += _texts(value)
    return tuple(found)


@contextmanager
def _in_python(texts: Collection[str]) -> Iterator[None]:
    try:
        yield
    except MalmmError as error:
        _translate(error, texts)
        note = f"hint: {error.hint}"  # which a traceback shows below the message
        if error.hint and note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise


def _translate(error: MalmmError, texts: Collection[str]) -> None:
    error.message = in_python(error.message, texts)
    error.hint = error.hint and in_python(error.hint, texts)
    error.args = (error.message,)


def _iterated(found: Generator[Any], texts: Collection[str]) -> Iterator[Any]:
    with _in_python(texts):
        yield from found


class Translated(Forwarding):
    """Passes on what a call reports, with arguments in place of options; `texts` stay."""

    def __init__(self, events: Events, texts: Collection[str] = ()) -> None:
        super().__init__(events)
        self._texts = texts

    def note(self, line: str) -> None:
        """A note."""
        self.to.note(in_python(line, self._texts))

    def warn(self, line: str) -> None:
        """A warning."""
        self.to.warn(in_python(line, self._texts))

    def interrupted(self, line: str) -> None:
        """Where what was done is kept."""
        self.to.interrupted(in_python(line, self._texts))

    def failed(self, error: MalmmError) -> None:
        """A copy of the error: the other one is on its way to a file."""
        error = copy(error)
        _translate(error, self._texts)
        self.to.failed(error)


def in_python(text: str, texts: Collection[str] = ()) -> str:
    """A message with arguments in place of the command line's options.

    What is quoted stays, and so do `texts` and the path of a file that the message begins with.
    """
    path = next((p for p in _beginnings(text) if _translated(p) != p and os.path.lexists(p)), "")
    parts = "|".join(map(re.escape, sorted(texts, key=len, reverse=True)))
    kept = re.compile(rf"({parts}|{_QUOTED})" if parts else f"({_QUOTED})")
    found = kept.split(text.removeprefix(path))
    return path + "".join(p if i % 2 else _translated(p) for i, p in enumerate(found))


def _beginnings(text: str) -> Iterator[str]:
    """What stands before each colon, the longest first."""
    ends = [found.start() for found in re.finditer(": ", text)]
    return (text[:end] for end in reversed(ends))


def _translated(text: str) -> str:
    for phrase, meant in _PHRASES.items():
        text = re.sub(phrase, meant, text)
    text = _OPTION.sub(_argument, text)
    text = re.sub(rf'="([^"]*)" or ({"|".join(_WORDS)})\b', r'="\1" or "\2"', text)
    return re.sub(r'(\w=(?:"[^"]*"|[\d.]+)) (?=\w+=)', r"\1, ", text)


def _argument(found: re.Match[str]) -> str:
    option, number, word = found["option"], found["number"], found["time"] or found["word"]
    if option in _SWITCHES and word is None:
        return _SWITCHES[option]
    name = _NAMES.get(option) or option[2:].replace("-", "_")
    if number is not None:
        return f"{name}={number}"
    return name if word is None else f'{name}="{word}"'
