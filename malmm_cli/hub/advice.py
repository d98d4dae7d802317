"""Which model to use on this machine; ends in one command that can be copied, if one is needed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from malmm_cli.hub.registry import DTYPE_BYTES, KNOWN, Known, memory_needed
from malmm_cli.hub.snapshot import size_text

__all__ = ["fitting", "pulling", "recommended"]

_EXTRA = "pip install 'malmm[quantize]'"

# Number types, and those with a quantised language model, from the best to the smallest.
_FORMS: tuple[tuple[str, str | None], ...] = (
    *((dtype, None) for dtype in DTYPE_BYTES),
    *(("float16", bits) for bits in ("8bit", "4bit")),
)


def pulling(name: str) -> str:
    """Say how to download a model, given by its name or repository: size, licence, command."""
    known = _known(name)
    described = f"{_described(known)}: " if known else ""
    return f"{described}while online, run: malmm models pull {known.name if known else name}"


def fitting(name: str, parameters: int, memory: int, *, here: bool) -> str:
    """Say in which form a model fits in `memory` bytes or, if in none, which one does."""
    known = _known(name)
    for dtype, bits in _FORMS:
        if memory_needed(parameters, dtype, bits) <= memory:
            if here or known is None:
                return (
                    f"this would fit: {_options(dtype, bits)}{_steps(bits, '' if here else name)}"
                )
            return _fits(known, dtype, bits)
    return recommended(memory, but=known.name if known else "")


def recommended(memory: int, *, but: str = "") -> str:
    """Say which model to get for `memory` bytes: the first of the table that fits as it is.

    If none does, the first that fits with a quantised language model. `but` is left out.
    """
    for known, dtype, bits in _candidates(but):
        if memory_needed(known.parameters or 0, dtype, bits) <= memory:
            return _fits(known, dtype, bits)
    smallest, dtype, bits = min(
        _candidates(), key=lambda found: memory_needed(found[0].parameters or 0, *found[1:])
    )
    needed = size_text(memory_needed(smallest.parameters or 0, dtype, bits))
    return f"use a machine with more memory: {smallest.name}, the smallest, needs {needed}"


def _fits(known: Known, dtype: str, bits: str | None) -> str:
    return f"{_described(known)} fits with {_options(dtype, bits)}{_steps(bits, known.name)}"


def _candidates(but: str = "") -> Iterator[tuple[Known, str, str | None]]:
    """Each model in each form: those that are not quantised first."""
    real = [k for k in KNOWN.values() if k.repository and k.parameters and k.name != but]
    for quantized in (False, True):
        for known in real:
            yield from ((known, *form) for form in _FORMS if (form[1] is not None) == quantized)


def _known(name: str) -> Known | None:
    return KNOWN.get(name) or next((k for k in KNOWN.values() if k.repository == name), None)


def _described(known: Known) -> str:
    licence = known.licence.split(" (")[0]
    return f"{known.name} ({size_text(known.download)}, {licence})"


def _options(dtype: str, bits: str | None) -> str:
    return f"--quantize {bits} --dtype {dtype}" if bits else f"--dtype {dtype}"


def _steps(bits: str | None, missing: str) -> str:
    """The command that installs what quantization needs and downloads a missing model."""
    commands = [_EXTRA] if bits and find_spec("bitsandbytes") is None else []
    commands += [f"malmm models pull {missing}"] if missing else []
    return f"; while online, run: {' && '.join(commands)}" if commands else ""
