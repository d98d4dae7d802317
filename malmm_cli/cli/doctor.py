"""The command `malmm doctor`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from malmm_cli.cli import config
from malmm_cli.cli.console import emit
from malmm_cli.cli.terminal import Terminal
from malmm_cli.cli.wrapping import fitted, width
from malmm_cli.files.escapes import on_one_line
from malmm_cli.formats import SCHEMA
from malmm_cli.settings import flag

if TYPE_CHECKING:
    from malmm_cli.doctor import Finding


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check which models run on this machine.

    Shows what is installed, which models fit, where each setting comes from, and what to run next.
    """
    import json as json_format

    from malmm_cli.doctor import examine, next_step

    events, default = Terminal(), str(config.origin_of("model").value)
    if json:
        content = {
            "schema": SCHEMA,
            "findings": [asdict(finding) for finding in (*examine(events), next_step(default))],
            "settings": [asdict(origin) for origin in config.origins()],
        }
        emit(json_format.dumps(content, indent=2) + "\n")
        return
    for finding in examine(events):
        _show(finding)
    for one in config.origins():
        value = "not set" if one.value is None else str(one.value)
        emit(_lines("ok", flag(one.key), f"{value} ({one.origin})"))
    _show(next_step(default))


def _show(finding: Finding) -> None:
    emit(_lines("ok" if finding.good else "--", finding.what, finding.found))
    if finding.advice:
        emit(_lines("", "", f"→ {finding.advice}"))


def _lines(mark: str, what: str, text: str) -> str:
    """One row; on a terminal its text is wrapped in its column."""
    start, text = f"{mark:2}  {what:<13} ", on_one_line(text)
    if sys.stdout.isatty():
        text = fitted(text, width() - len(start))
    return start + text.replace("\n", f"\n{' ' * len(start)}") + "\n"
