"""The command `malmm doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from malmm_cli.cli.console import emit
from malmm_cli.files.escapes import on_one_line


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check which models run on this machine.

    Shows what is installed, which models fit, and what to do about the others.
    """
    import json as json_format

    from malmm_cli.doctor import examine

    if json:
        findings = [asdict(finding) for finding in examine()]
        emit(json_format.dumps(findings, indent=2) + "\n")
        return
    for finding in examine():
        mark = "ok" if finding.good else "--"
        emit(f"{mark}  {finding.what:<13} {on_one_line(finding.found)}\n")
        if finding.advice:
            emit(f"    {'':<13} → {on_one_line(finding.advice)}\n")
