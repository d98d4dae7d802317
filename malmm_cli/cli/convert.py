"""The command `malmm convert`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from malmm_cli.cli.console import note
from malmm_cli.cli.terminal import Terminal
from malmm_cli.errors import UsageError


def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", show_default=False)],
    folder: Annotated[Path, typer.Argument(metavar="OUT_FOLDER", show_default=False)],
    base: Annotated[
        str,
        typer.Option(metavar="NAME|FOLDER", help="Base model that supplies the frozen weights."),
    ] = "vicuna-7b",
    offline: Annotated[bool, typer.Option("--offline", help="Do not access the network.")] = False,
) -> None:
    """Convert a checkpoint of the authors of MA-LMM or Video-LLaMA.

    The result is a folder for --model.

    Full and trained-only checkpoints (a .pth with {"model": ...}) are merged onto a base model,
    which supplies configuration, tokenizers and everything that was frozen.

    \b
    malmm convert checkpoint_best.pth my-model
    malmm convert checkpoint_best.pth my-model --base flan-t5-xl
    malmm caption video.mp4 --model ./my-model
    """
    if not os.path.isfile(checkpoint):
        there = "is a folder" if os.path.isdir(checkpoint) else "is not a regular file"
        raise UsageError(
            f"{checkpoint}: {there if os.path.exists(checkpoint) else 'no such file'}",
            hint="give the path of a .pth or .safetensors file",
        )
    from malmm_cli import hub
    from malmm_cli.checkpoints.layout import read_config
    from malmm_cli.checkpoints.others import listed, read_tensors
    from malmm_cli.files.atomic import new_folder
    from malmm_cli.formats import check_new_folder
    from malmm_cli.models import registry

    check_new_folder(folder)
    tensors = read_tensors(checkpoint)
    events = Terminal()
    with events.stage("download", "bytes"):
        located = hub.locate(base, offline=offline, events=events)
    kind = read_config(located.folder)["model_type"]
    if kind not in registry.having("convert"):
        raise UsageError(
            f"{base}: nothing can be converted to a model of type {kind}",
            hint=f"give a --base of type {' or '.join(registry.having('convert'))}",
        )
    converting = registry.part(located.folder, "convert")
    laid = converting.rename(tensors, where=str(checkpoint))
    with new_folder(folder) as new:
        where = f"{checkpoint} over {located.name}"
        done = converting.lay_over(laid, located.folder, new, where=where)
    note(f"{folder}: {done.taken} tensors of {checkpoint}")
    if done.kept:
        note(f"from the base {located.name}: {', '.join(listed(done.kept))}")
    if not done.positions:
        note("no position table (image_pe.weight): the model does not know the order of the frames")
