"""The command `malmm models`."""

from __future__ import annotations

import json as json_format
import os
from typing import Annotated, Any

import typer

from malmm_cli.cli import completion, config
from malmm_cli.cli.console import emit, note
from malmm_cli.cli.terminal import Terminal
from malmm_cli.errors import CapacityError
from malmm_cli.files.escapes import on_one_line

app = typer.Typer(help="List, download and describe models.", rich_markup_mode=None)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME|HUB_ID|FOLDER", show_default=False, autocompletion=completion.models
    ),
]


@app.callback(invoke_without_command=True)
def models(context: typer.Context, json: _Json = False) -> None:
    """List, download and describe models.

    Without a command it lists those with a short name; any InstructBLIP repository or folder works
    too.

    \b
    malmm models
    malmm models pull flan-t5-xl
    malmm models info vicuna-7b --json
    """
    if context.invoked_subcommand is None:
        list_models(json=json)


@app.command("list")
def list_models(json: _Json = False) -> None:
    """List the models that have a short name.

    Shows download and memory sizes, licence, and whether a model is downloaded.
    """
    from malmm_cli import hub

    rows = [hub.describe(name, files=False) for name in hub.KNOWN]
    emit(_json(rows) if json else _table(rows))


@app.command("info")
def info(name: _Name, json: _Json = False) -> None:
    """Describe a model and what is downloaded of it.

    Needs no network.
    """
    from malmm_cli import hub

    about = hub.describe(name)
    emit(_json(about) if json else _lines(about))


@app.command("pull")
def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|HUB_ID", show_default=False, autocompletion=completion.downloadable
        ),
    ],
    json: _Json = False,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            envvar="MALMM_OFFLINE",
            show_envvar=False,
            help="Do not access the network.",
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Only print results and errors.")
    ] = False,
    no_progress: Annotated[
        bool, typer.Option("--no-progress", help="Hide the progress bar.")
    ] = False,
) -> None:
    """Download or verify a model, and print its folder.

    \b
    malmm models pull vicuna-7b
    malmm models pull Salesforce/instructblip-flan-t5-xl
    """
    from malmm_cli import hub
    from malmm_cli.processes import machine

    def check_memory(parameters: int) -> None:
        try:
            hub.check_memory(name, parameters, "float16", machine.free_memory())
        except CapacityError as error:  # it may be for another machine
            events.note(f"note: {error.message}")

    events = Terminal(quiet=quiet, bars=not no_progress)
    with events.stage("download", "bytes"):
        located = hub.locate(
            name, offline=offline, verify=True, check_memory=check_memory, events=events
        )
    about = hub.describe(name)  # looks into the files
    emit(_json(about) if json else f"{located.folder}\n")


@app.command("use")
def use(name: _Name) -> None:
    """Make a model the default, in the config file.

    \b
    malmm models use flan-t5-xl
    """
    from malmm_cli import hub

    folder = hub.describe(name, files=False)["folder"]
    bundled_or_known = name in hub.KNOWN or folder is None or not os.path.isdir(name)
    file = config.write("model", name if bundled_or_known else os.path.abspath(name))
    note(f"default model: {name}, in {file}")


def _json(content: Any) -> str:
    return json_format.dumps(content, indent=2) + "\n"


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [("name", "repository", "download", "float32", "half", "licence", "revision", "here")]
    lines += [
        (
            row["name"],
            row["repository"] or "in this package",
            _size(row["download"]),
            _size(row["memory"]["float32"]),
            _size(row["memory"]["float16"]),
            row["licence"].split(" (")[0],
            _revision(row)[:7],
            _here(row),
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        [cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines
    ]
    return "".join("  ".join(line).rstrip() + "\n" for line in padded)


def _lines(about: dict[str, Any]) -> str:
    absent = f"partly downloaded: {_here(about)}" if about["arrived"] else "not downloaded"
    memory = ", ".join(f"{dtype} {_size(size)}" for dtype, size in about["memory"].items())
    fields = {
        "name": about["name"],
        "note": about["note"],
        "repository": about["repository"],
        "revision": _revision(about),
        "licence": about["licence"],
        "parameters": about["parameters"] and f"{about['parameters']:,}",
        "download": about["download"] and f"about {_size(about['download'])}",
        "memory": about["parameters"] and f"{memory}, for the weights",
        "folder": about["folder"] or absent,
        "stored": ", ".join(about["stored"] or ()),
    }
    sizes = (about["shards"] or {}).items()
    shards = [f"  {on_one_line(name)}  {_size(size)}\n" for name, size in sizes]
    known = [f"{label:<11} {on_one_line(value)}\n" for label, value in fields.items() if value]
    return "".join([*known, *shards])


def _here(about: dict[str, Any]) -> str:
    """Whether it is on this machine: yes, no, or how much of it."""
    if about["here"] or not about["arrived"]:
        return "yes" if about["here"] else "no"
    arrived, whole = _size(about["arrived"]), _size(about["download"])
    same = whole and arrived.split()[1] == whole.split()[1]
    return f"{arrived.split()[0] if same else arrived} of {whole}" if whole else arrived


def _revision(about: dict[str, Any]) -> str:
    if about["pinned"]:
        return f"{about['revision']} (pinned)"
    if about["repository"]:
        return f"{about['revision']} (main when downloaded)" if about["revision"] else "main"
    return ""


def _size(size: int | None) -> str:
    from malmm_cli.hub import size_text

    return size_text(size) if size else ""
