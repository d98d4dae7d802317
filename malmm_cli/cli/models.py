"""`malmm models`."""

from __future__ import annotations

from typing import Annotated

import typer

from malmm_cli.cli.console import emit

app = typer.Typer(help="Which models there are.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def models(context: typer.Context) -> None:
    """List the models that have a short name; any Hub repository or folder works too."""
    if context.invoked_subcommand is None:
        list_models()


@app.command("list")
def list_models(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the models that have a short name, and whether they are on this machine."""
    from malmm_cli.hub import KNOWN, is_cached

    rows = [
        {
            "name": known.name,
            "repository": known.repository,
            "licence": known.licence,
            "here": is_cached(known),
            "note": known.note,
        }
        for known in KNOWN.values()
    ]
    if json:
        import json as json_format

        emit(json_format.dumps(rows, indent=2) + "\n")
        return
    lines = [("name", "repository", "licence", "here", "note")]
    lines += [
        (
            str(row["name"]),
            str(row["repository"] or "in this package"),
            str(row["licence"]),
            "yes" if row["here"] else "no",
            str(row["note"]),
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        emit("  ".join(cells).rstrip() + "\n")
