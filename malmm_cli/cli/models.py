"""The command `malmm models`."""

from __future__ import annotations

import json as json_format
import sys
from typing import Annotated, Any

import typer

from malmm_cli.cli import completion, config
from malmm_cli.cli.console import emit, note
from malmm_cli.cli.model_table import on_disk, size, table
from malmm_cli.cli.models_check import check
from malmm_cli.cli.terminal import Terminal
from malmm_cli.errors import CapacityError, ModelError, UsageError
from malmm_cli.files.escapes import on_one_line
from malmm_cli.formats import SCHEMA

app = typer.Typer(help="List, download, describe, check and remove models.", rich_markup_mode=None)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME|HUB_ID|FOLDER", show_default=False, autocompletion=completion.models
    ),
]


@app.callback(invoke_without_command=True)
def models(context: typer.Context, json: _Json = False) -> None:
    """List, download, describe, check and remove models.

    Without a command it lists those with a short name; any repository or folder of these kinds of
    models works too.

    \b
    malmm models
    malmm models use qwen3-vl-2b
    malmm models pull qwen3-vl-2b
    malmm models info vicuna-7b --json
    """
    if context.invoked_subcommand is None:
        list_models(json=json)


@app.command("list")
def list_models(json: _Json = False) -> None:
    """List the models that have a short name.

    Shows the size of the download, the licence, published scores on long videos with their sources,
    the best form that fits in the memory that is free here, and the size on disk. `malmm models
    info NAME` shows more.
    """
    from malmm_cli import hub

    free = _free()
    rows = [_described(name, free, files=False) for name in hub.KNOWN]
    default = str(config.origin_of("model").value)
    emit(_json(rows) if json else table(rows, default))


@app.command("info")
def info(name: _Name, json: _Json = False) -> None:
    """Describe a model and what is downloaded of it.

    Needs no network.
    """
    model = _described(name, _free())
    emit(_json(model) if json else _lines(model))


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
    malmm models pull qwen3-vl-2b
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
    model = _described(name, _free())  # looks into the files
    emit(_json(model) if json else f"{located.folder}\n")


@app.command("use")
def use(name: _Name) -> None:
    """Make a model the default, in the config file.

    Commands that are given no --model then use it. Nothing is downloaded yet.

    \b
    malmm models use qwen3-vl-2b
    """
    from malmm_cli import hub

    about, before = hub.describe(name, files=False), config.read().get("model")
    lasting = hub.lasting(name)
    file = config.write("model", lasting)
    was = "" if before in (None, lasting) else f"; before: {before}"
    note(f"default model: {lasting}, in {file}{was}")
    if (now := config.origin_of("model")).origin != str(file):
        note(f"note: {now.origin} is set to {now.value}, which comes before the config file")
    if about["note"]:
        note(f"note: {name} is {about['note']}")
    if not about["here"]:
        note(f"{name} is not downloaded; while online, run: malmm models pull {name}")


app.command("check")(check)


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
    for name, (repository, stored) in found.items():
        question = f"remove {name} ({size(stored)}, {repository})?"
        if yes or _confirmed(question):
            freed = hub.remove(repository)
            emit(f"{name}\n")
            note(f"{size(freed)} freed")


def _confirmed(question: str) -> bool:
    """Ask on stderr, since stdout has the results; anything but y or yes is a no."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _free() -> int:
    """Bytes that are free for a model."""
    from malmm_cli.doctor import free_memory

    return free_memory()


def _described(name: str, free: int, *, files: bool = True) -> dict[str, Any]:
    """What is known of a model, and the forms in which it fits in `free` bytes."""
    from malmm_cli import hub

    model = hub.describe(name, files=files, disk=True)
    fits = [form for form, size in model["memory"].items() if size is not None and size <= free]
    return {"schema": SCHEMA, **model, "fits": None if model["parameters"] is None else fits}


def _json(content: Any) -> str:
    return json_format.dumps(content, indent=2) + "\n"


def _lines(model: dict[str, Any]) -> str:
    absent = f"partly downloaded: {on_disk(model)}" if model["arrived"] else "not downloaded"
    memory = ", ".join(f"{form} {size(number)}" for form, number in model["memory"].items())
    fields = {
        "name": model["name"],
        "note": model["note"],
        "repository": model["repository"],
        "revision": _revision(model),
        "licence": model["licence"],
        "parameters": model["parameters"] and f"{model['parameters']:,}",
        "download": model["download"] and f"about {size(model['download'])}",
        "memory": model["parameters"] and f"{memory}, for the weights",
        "fits here": model["fits"] is not None and (", ".join(model["fits"]) or "no"),
        "scores": _scores(model["scores"]),
        "folder": model["folder"] or absent,
        "on disk": size(model["size"]) if model["folder"] else None,
        "stored": ", ".join(model["stored"] or ()),
    }
    sizes = (model["shards"] or {}).items()
    shards = [f"  {on_one_line(name)}  {size(number)}\n" for name, number in sizes]
    known = [f"{label:<11} {on_one_line(value)}\n" for label, value in fields.items() if value]
    return "".join([*known, *shards])


def _scores(scores: dict[str, Any] | None) -> str:
    """Published scores and their source."""
    names = {"mlvu": "MLVU", "video_mme": "Video-MME", "lvbench": "LVBench"}
    known = [f"{name} {scores[key]}" for key, name in names.items() if scores and scores[key]]
    return f"{', '.join(known)} ({scores['source']})" if scores else ""


def _revision(model: dict[str, Any]) -> str:
    if model["pinned"]:
        return f"{model['revision']} (pinned)"
    if model["repository"]:
        return f"{model['revision']} (main when downloaded)" if model["revision"] else "main"
    return ""
