"""The report of `malmm models check` on one screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from malmm_cli.files.escapes import on_one_line
from malmm_cli.text.words import counted

__all__ = ["summary"]

_WIDE = 80
_LABEL = 12


def summary(report: Mapping[str, Any]) -> str:
    """At most 80 columns and 24 lines."""
    return "".join(f"{line}\n" for line in _lines(report))


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    frames, spent = report["frames"], report["seconds"].items()
    versions = report["versions"].items()
    yield _row("model", f"{report['model']}: {report['architecture']}")
    if report["repository"]:
        yield _row("source", f"{report['repository']} at {report['revision'][:12]}")
    yield _row("versions", ", ".join(f"{name} {known}" for name, known in versions if known))
    size = f"{counted(frames['number'], 'frame')} of {frames['width']}x{frames['height']}"
    system = report["machine"]["system"]
    yield _row("run on", f"{report['device']}, {report['dtype']}, {system}; {size}")
    yield from _agreement(report)
    yield from _answers(report["questions"])
    yield _row("seconds", ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in spent))
    device = f", {report['peak_device_mib']} MiB on the GPU" if report["peak_device_mib"] else ""
    yield _row("memory", f"{report['peak_mib']} MiB at most{device}")
    yield _row("result", "both paths agree" if report["agree"] else "the paths differ")


def _agreement(report: Mapping[str, Any]) -> Iterator[str]:
    """How far prompts, pixels and logits agree, and what was not compared."""
    processor, pixels, logits = (report[key] for key in ("processor", "pixels", "logits"))
    prompts = report["prompts"]
    if processor is None:
        yield _row("processor", f"not used: {report['no_processor']}")
        yield _row("", "compared instead: chat template, and the model on malmm's pixels")
    else:
        yield _row("processor", processor)
    tokens = counted(sum(prompts["tokens"]), "token")
    yield _row("prompts", f"equal: {tokens}" if prompts["equal"] else "differ")
    if report["form"]:
        yield _row("", f"with {report['form']}")
    if first := prompts["first_difference"]:
        yield _row("", f"question {first['question'] + 1}, from token {first['token']} on:")
        yield _row("", f"malmm        {first['malmm']!r}")
        yield _row("", f"transformers {first['transformers']!r}")
    if pixels is not None:
        yield _row("pixels", _difference(pixels))
    yield _row("logits", _difference(logits))


def _difference(found: Mapping[str, Any]) -> str:
    if found["largest_difference"] is None:
        return "not comparable"
    verdict = "agree" if found["agree"] else "differ"
    return f"{verdict}: by {found['largest_difference']:.1e}, {found['allowed']:.0e} is allowed"


def _answers(questions: list[dict[str, Any]]) -> Iterator[str]:
    """Each question with malmm's answer, and transformers' where it is another."""
    agree, right = (sum(one[key] for one in questions) for key in ("agree", "right"))
    about = "a red star that moves to the right"
    yield _row("answers", f"{agree} of {len(questions)} agree, {right} right; about {about}")
    for one in questions:
        yield _row("", one["question"])
        mark = "right" if one["right"] else "wrong"
        yield _row("", f"  {mark}: {one['malmm']}")
        if one["malmm"] != one["transformers"]:
            rounding = " (rounding)" if one["agree"] else ""
            yield _row("", f"  transformers{rounding}: {one['transformers']}")


def _row(label: str, text: str) -> str:
    """A line, cut at the 80th column: the report has all of it."""
    from rich.cells import cell_len, set_cell_size

    line = f"{label:<{_LABEL}}{on_one_line(text)}".rstrip()
    return line if cell_len(line) <= _WIDE else f"{set_cell_size(line, _WIDE - 1)}…"
