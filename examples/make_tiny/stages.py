"""Stages that are done once, and those of the language model, which need no other part."""

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from language import train_language
from model import deepen, new_model
from torch import nn
from training import keep

from malmm_cli.files.atomic import new_file

LANGUAGE = ("language_model",)


def claim(work: Path, recipe: dict[str, Any]) -> None:
    """Make the folder of the stages; one with stages of another recipe is refused."""
    path = work / "recipe.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
    else:
        found = "unknown" if list(work.glob("*.pt")) else recipe
    if found != recipe:
        raise SystemExit(
            f"{work}: holds stages of another version ({found}, not {recipe}); "
            "remove it or give another folder: --work FOLDER"
        )
    work.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        file.write(json.dumps(recipe).encode())


def logger(work: Path) -> Callable[[str], None]:
    """What prints a line and adds it to the log in the folder."""

    def log(line: str) -> None:
        print(line, flush=True)
        with (work / "log.txt").open("a") as file:
            file.write(f"{line}\n")

    return log


def stage(
    name: str, model: Any, parts: tuple[str, ...], train, work: Path, steps: int, /, **options
) -> None:
    """Train unless that is done; the model then has what was learnt, the parameters of its parts.

    It is a module, or has one as `net`.
    """
    net: nn.Module = getattr(model, "net", model)
    path = work / f"{name}.pt"
    if not path.exists():
        train(model, steps, logger(work), work / f"{name}.steps", **options)
        keep({k: v for k, v in net.state_dict().items() if k.startswith(parts)}, path)
    net.load_state_dict(torch.load(path, weights_only=True), strict=False)


def end_with_parent() -> None:
    """Let this process end as soon as the one that started it has, however that ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "no process started this one"

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def speak(work: Path, steps: dict[str, int], threads: int) -> None:
    """The stages of the language model; practice.pt in the folder has what it learnt."""
    end_with_parent()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    shallow, deep = new_model(work / "shallow", layers=4), new_model(work / "deep")
    stage("language", shallow, LANGUAGE, train_language, work, steps["language"])
    deepen(shallow, deep)
    for name, rate, noise in (("fluency", 1e-3, 0.2), ("practice", 6e-4, 0.3)):
        options = {"fluent": True, "rate": rate, "noise": noise, "name": name}
        stage(name, deep, LANGUAGE, train_language, work, steps[name], **options)
