"""The command `malmm doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from malmm_cli.cli import config
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
        content = {
            "schema": "malmm/1",
            "findings": [asdict(finding) for finding in examine()],
            "settings": [asdict(origin) for origin in config.origins()],
        }
        emit(json_format.dumps(content, indent=2) + "\n")
        return
    for finding in examine():
        mark = "ok" if finding.good else "--"
        emit(f"{mark}  {finding.what:<13} {on_one_line(finding.found)}\n")
        if finding.advice:
            emit(f"    {'':<13} → {on_one_line(finding.advice)}\n")
    for one in config.origins():
        value = "not set" if one.value is None else on_one_line(str(one.value))
        emit(f"ok  {one.key:<13} {value} ({on_one_line(one.origin)})\n")
