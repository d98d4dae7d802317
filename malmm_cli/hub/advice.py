"""Which model to use on this machine; ends in one command that can be copied, if one is needed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from malmm_cli.hub.registry import DEFAULT, FORMS, KNOWN, Known, memory_needed
from malmm_cli.hub.snapshot import size_text
from malmm_cli.processes import machine

__all__ = ["fitting", "instead", "known_as", "pulling", "recommended"]

_EXTRA = "pip install 'malmm[quantize]'"

# What is recommended in place of the default, which is older, larger and less free: the best for
# its size, then what fits where that does not.
_CHOICES = ("qwen3-vl-2b", "qwen3.5-0.8b", "smolvlm2-500m", "smolvlm2-256m")


def pulling(name: str, *, chosen: bool = False) -> str:
    """Say how to get a model that is missing, given by its name or repository.

    That is its size, its licence and the command; those of a newer model for the default, unless it
    was `chosen`.
    """
    if name == DEFAULT and not chosen:
        return instead()
    known = known_as(name)
    described = f"{_described(known)}: " if known else ""
    return f"{described}while online, run: malmm models pull {known.name if known else name}"


def fitting(
    name: str, parameters: int, memory: int, *, here: bool, whole: int | None = None
) -> str:
    """Say in which form a model fits in `memory` bytes or, if in none, which one does.

    In place of the default where it is not `here` in a form that fits as it is, say that always.
    """
    known = known_as(name)
    short = known.name if known else name
    for dtype, bits in FORMS.values():
        if short == DEFAULT and (bits or not here):
            return instead(memory)
        if memory_needed(parameters, dtype, bits, whole) <= memory:
            if here or known is None:
                return f"this would fit: {_in_form(dtype, bits, '' if here else name)}"
            return f"{_described(known)} fits with {_in_form(dtype, bits, short)}"
    return recommended(memory, but=short, named=True)


def _in_form(dtype: str, bits: str | None, missing: str) -> str:
    """The options of a form, and the command that installs and downloads what is missing."""
    options = f"--quantize {bits} --dtype {dtype}" if bits else f"--dtype {dtype}"
    commands = [_EXTRA] if bits and find_spec("bitsandbytes") is None else []
    commands += [f"malmm models pull {missing}"] if missing else []
    return options + (f"; while online, run: {' && '.join(commands)}" if commands else "")


def instead(memory: int | None = None) -> str:
    """Say which model to use in place of the default, and how."""
    memory = machine.free_memory() if memory is None else memory
    because = f" is smaller and newer than {DEFAULT}"
    return recommended(memory, because=because, named=True)


def recommended(memory: int, *, but: str = "", because: str = " fits", named: bool = False) -> str:
    """Say which model to use in `memory` bytes: the first choice that fits as it is.

    If none does, the first that fits with a quantised language model. `but` is left out. `because`
    is what is said of one that fits as it is. Where another model may have been `named` by
    --model, which stands above the default, say that too.
    """
    for known, dtype, bits in _candidates(but):
        if _needed(known, dtype, bits) <= memory:
            if bits is None:  # "auto" finds the number type
                option = f", or give --model {known.name}" if named else ""
                return f"{_described(known)}{because}; run: malmm models use {known.name}{option}"
            return f"{_described(known)} fits with {_in_form(dtype, bits, known.name)}"
    smallest, dtype, bits = min(_candidates(), key=lambda found: _needed(*found))
    needed = size_text(_needed(smallest, dtype, bits))
    return f"use a machine with more memory: {smallest.name}, the smallest, needs {needed}"


def _needed(known: Known, dtype: str, bits: str | None) -> int:
    return memory_needed(known.parameters or 0, dtype, bits, known.whole)


def _candidates(but: str = "") -> Iterator[tuple[Known, str, str | None]]:
    """Each choice in each form: those that are not quantised first."""
    for quantized in (False, True):
        for name in _CHOICES:
            if name != but:
                forms = (form for form in FORMS.values() if (form[1] is not None) == quantized)
                yield from ((KNOWN[name], *form) for form in forms)


def known_as(name: str) -> Known | None:
    """The model with a short name that a name or a repository stands for."""
    return KNOWN.get(name) or next((k for k in KNOWN.values() if k.repository == name), None)


def _described(known: Known) -> str:
    licence = known.licence.split(" (")[0]
    return f"{known.name} ({size_text(known.download)}, {licence})"
