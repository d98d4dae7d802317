"""The command `malmm models check`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from malmm_cli.cli import completion
from malmm_cli.cli.check_summary import summary
from malmm_cli.cli.console import emit
from malmm_cli.cli.options import RunOptions, with_options
from malmm_cli.cli.terminal import Terminal
from malmm_cli.errors import OutputError
from malmm_cli.files.escapes import to_json
from malmm_cli.files.jsonl import encoded
from malmm_cli.formats import check_writable, open_whole
from malmm_cli.models.placement import check_placement

__all__ = ["check"]

_OPTIONS = ("device", "dtype", "json", "overwrite", "offline", "quiet", "no_progress")


@with_options(only=_OPTIONS)
def check(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|HUB_ID|FOLDER", show_default=False, autocompletion=completion.models
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Report file instead of NAME.check.json."
        ),
    ] = None,
    *,
    options: RunOptions,
) -> None:
    """Compare a model with transformers' own path, and write a report.

    Prompts, logits and greedy answers to three questions about a drawn clip are compared. The
    report is written as JSON, to be sent in with a bug; --json also prints it. Exits with 1 if the
    paths differ, whether or not the answers are right.

    Runs in float32 unless --dtype is given, since rounding hides differences. Install torchvision
    to compare with transformers' own processor as well.

    \b
    malmm models check qwen3-vl-2b
    malmm models check smolvlm2-500m -o smolvlm.json --device cpu
    """
    from malmm_cli.check.families import check_family
    from malmm_cli.pipeline.precheck import check_absent

    check_placement(options.device, options.dtype, None)
    check_family(name)
    target = output or Path(f"{_short(name)}.check.json")
    check_writable(target, overwrite=options.overwrite)
    dtype = "float32" if options.dtype == "auto" else options.dtype
    check_absent(name, device=options.device, dtype=dtype, quantize=None, offline=options.offline)
    events = Terminal.of(options)
    with events.stage(name, ""), events.stage("starting", ""):  # torch takes seconds
        from malmm_cli.check import runner
    report = runner.run(
        name, device=options.device, dtype=dtype, offline=options.offline, events=events
    )
    text = to_json(report, indent=2) + "\n"
    emit(text if options.json else summary(report))
    try:
        with open_whole(target, replace=options.overwrite) as file:
            file.write(encoded(text))
    except OutputError as error:
        if not options.json:
            emit(text)
        error.hint = "the report is printed on stdout instead"
        raise
    events.note(f"report: {target}")
    if not report["agree"]:
        raise typer.Exit(1)


def _short(name: str) -> str:
    """The last part of a repository's or a folder's name."""
    return os.path.basename(os.path.abspath(os.path.expanduser(name)))
