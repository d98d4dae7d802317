"""The command `malmm models`."""

from __future__ import annotations

import json as json_format
import os
import sys
from typing import Annotated, Any

import typer

from malmm_cli.cli import completion, config
from malmm_cli.cli.console import emit, note
from malmm_cli.cli.terminal import Terminal
from malmm_cli.errors import CapacityError, ModelError, UsageError
from malmm_cli.files.escapes import on_one_line
from malmm_cli.formats import SCHEMA

app = typer.Typer(help="List, download, describe and remove models.", rich_markup_mode=None)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME|HUB_ID|FOLDER", show_default=False, autocompletion=completion.models
    ),
]


@app.callback(invoke_without_command=True)
def models(context: typer.Context, json: _Json = False) -> None:
    """List, download, describe and remove models.

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

    Shows the sizes of the download, of the weights in memory (half precision, and with --quantize
    4bit) and on disk, and the licence. `malmm models info NAME` shows more.
    """
    from malmm_cli import hub

    rows = [hub.describe(name, files=False, disk=True) for name in hub.KNOWN]
    emit(_json([{"schema": SCHEMA, **row} for row in rows]) if json else _table(rows))


@app.command("info")
def info(name: _Name, json: _Json = False) -> None:
    """Describe a model and what is downloaded of it.

    Needs no network.
    """
    from malmm_cli import hub

    model = hub.describe(name, disk=True)
    emit(_json({"schema": SCHEMA, **model}) if json else _lines(model))


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
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Hide progress and notes.")] = False,
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
            fits, *_ = (error.hint or "").partition("; while online")
            events.note(f"note: {error.message}; {fits}")
            better.append(error.hint or "")

    better: list[str] = []  # what to get instead of what does not fit
    events = Terminal(quiet=quiet, bars=not no_progress)
    try:
        with events.stage("download", "bytes"):
            located = hub.locate(
                name, offline=offline, verify=True, check_memory=check_memory, events=events
            )
    except ModelError as error:
        if better and error.kind in ("NoNetwork", "NotCached"):
            error.hint = better[0]
        raise
    model = hub.describe(name, disk=True)  # looks into the files
    emit(_json({"schema": SCHEMA, **model}) if json else f"{located.folder}\n")


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


@app.command("rm")
def remove(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME|HUB_ID", show_default=False, autocompletion=completion.downloadable
        ),
    ],
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
) -> None:
    """Remove downloaded models, and print their names.

    Partial downloads and other revisions of a model go too. Other programs that share the cache of
    the Hugging Face Hub lose them as well.

    \b
    malmm models rm vicuna-13b
    malmm models rm vicuna-7b flan-t5-xl --yes
    """
    from malmm_cli import hub

    found = {name: hub.removable(name) for name in names}
    if not yes and not sys.stdin.isatty():
        raise UsageError("not removed: no terminal to ask on", hint="use --yes")
    for name, (repository, size) in found.items():
        question = f"remove {name} ({hub.size_text(size)}, {repository})?"
        if yes or _confirmed(question):
            freed = hub.remove(repository)
            emit(f"{name}\n")
            note(f"{hub.size_text(freed)} freed")


def _confirmed(question: str) -> bool:
    """Ask on stderr, since stdout has the results; anything but y or yes is a no."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _json(content: Any) -> str:
    return json_format.dumps(content, indent=2) + "\n"


def _table(rows: list[dict[str, Any]]) -> str:
    default = str(config.origin_of("model").value)
    lines = [("name", "download", "half", "4bit", "licence", "on disk")]
    lines += [
        (
            f"{row['name']} (default)" if row["name"] == default else row["name"],
            _size(row["download"]),
            _size(row["memory"]["float16"]),
            _size(_quantized(row["parameters"])),
            row["licence"].split(" (")[0],
            _on_disk(row),
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        [cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines
    ]
    return "".join("  ".join(line).rstrip() + "\n" for line in padded)


def _quantized(parameters: int | None) -> int | None:
    from malmm_cli import hub

    return parameters and hub.memory_needed(parameters, "float16", "4bit")


def _lines(model: dict[str, Any]) -> str:
    absent = f"partly downloaded: {_on_disk(model)}" if model["arrived"] else "not downloaded"
    memory = ", ".join(f"{dtype} {_size(size)}" for dtype, size in model["memory"].items())
    fields = {
        "name": model["name"],
        "note": model["note"],
        "repository": model["repository"],
        "revision": _revision(model),
        "licence": model["licence"],
        "parameters": model["parameters"] and f"{model['parameters']:,}",
        "download": model["download"] and f"about {_size(model['download'])}",
        "memory": model["parameters"] and f"{memory}, for the weights",
        "folder": model["folder"] or absent,
        "on disk": _size(model["size"]) if model["folder"] else None,
        "stored": ", ".join(model["stored"] or ()),
    }
    sizes = (model["shards"] or {}).items()
    shards = [f"  {on_one_line(name)}  {_size(size)}\n" for name, size in sizes]
    known = [f"{label:<11} {on_one_line(value)}\n" for label, value in fields.items() if value]
    return "".join([*known, *shards])


def _on_disk(model: dict[str, Any]) -> str:
    """The size of what is here, how much of it has arrived, or "no"."""
    if model["here"] or not model["arrived"]:
        return _size(model["size"]) if model["here"] else "no"
    arrived, whole = _size(model["arrived"]), _size(model["download"])
    same = whole and arrived.split()[1] == whole.split()[1]
    return f"{arrived.split()[0] if same else arrived} of {whole}" if whole else arrived


def _revision(model: dict[str, Any]) -> str:
    if model["pinned"]:
        return f"{model['revision']} (pinned)"
    if model["repository"]:
        return f"{model['revision']} (main when downloaded)" if model["revision"] else "main"
    return ""


def _size(size: int | None) -> str:
    from malmm_cli.hub import size_text

    return size_text(size) if size else ""
