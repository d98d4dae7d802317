"""Settings in words: each option as the command line names it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from malmm_cli.settings import Changes, MemoryOptions, flag

__all__ = ["difference", "main_options", "option", "options_of"]

KINDS = ("questions", "captions")
OPTIONS = {*Changes.__annotations__, "model", "dtype", "quantize", "choices"}
COMPRESSION = ("merge", "mean", "fill", "memory_seed")
MAIN = ("memory", "frames", "fps", "max_frames", "max_new_tokens", "beams")


def option(name: str, value: Any) -> str:
    """An option with its value: "--frames 60", "--choices"."""
    if value is True:
        return flag(name)
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{flag(name)} {shlex.quote(text)}"


def options_of(settings: Mapping[str, Any], names: Iterable[str]) -> str:
    """Those of some options that are set, in settings as reports have them."""
    flat = _flat(settings)
    return " ".join(option(name, flat[name]) for name in names if flat[name] is not None)


def main_options(settings: Mapping[str, Any]) -> str:
    """The options that a reader of scores looks for; the usual memory is not named."""
    usual = MemoryOptions()
    unusual = [n for n in ("policy", "banks") if settings[n] != getattr(usual, n)]
    unusual += [n for n in COMPRESSION if n in settings]  # the usual is left out there
    return options_of(settings, [*MAIN, *unusual])


def difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The first thing that differs: "with --max-new-tokens 80, not 9"; "for other tasks"."""
    there, here = _named(there), _named(here)
    for name in {**here, **there}:
        one, other = there.get(name), here.get(name)
        if one != other and name == "tasks":
            break
        if one != other and name in KINDS and isinstance(one, dict) and isinstance(other, dict):
            return _between_kinds(there, here)
        if one != other:
            return _words(name, one, other)
    return "for other tasks"


def _named(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The source of predictions, with the option that sets the precision of weights."""
    bits = provenance.get("bits")
    quantize = {"quantize": f"{bits}bit" if bits else None}
    return {**{name: value for name, value in provenance.items() if name != "bits"}, **quantize}


def _between_kinds(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The first option that differs, and for which kind of tasks where that is one."""
    differ: dict[str, dict[str, str]] = {}
    for kind in KINDS:
        one, other = _flat(there[kind]), _flat(here[kind])
        for name in {**other, **one}:
            if one.get(name) != other.get(name):
                differ.setdefault(name, {})[kind] = _words(name, one.get(name), other.get(name))
    kinds = next(iter(differ.values()))
    (kind, words), *others = kinds.items()
    return words if others else f"{words}, for {kind}"


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with their decoding beside the rest."""
    flat = {**settings, **settings.get("decoding", {})}
    return {name: value for name, value in flat.items() if name != "decoding"}


def _words(name: str, one: Any, other: Any) -> str:
    if name not in OPTIONS:
        return f"with {name} {one}, not {other}"
    if one in (None, False):
        return f"without {flag(name)}, not with {option(name, other)}"
    if other in (None, False):
        return f"with {option(name, one)}, not without"
    return f"with {option(name, one)}, not {option(name, other).removeprefix(flag(name)).strip()}"
