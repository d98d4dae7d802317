"""Caption long videos and answer questions about them with a memory of constant size.

import malmm_cli

model = malmm_cli.load("tiny")
print(malmm_cli.caption("video.mp4", model=model).text)
for answer in malmm_cli.ask("video.mp4", ["what moves?", "where to?"], model=model):
    print(answer.question, answer.text)

`batch`, `evaluate` and `train` are packages whose `run` does what the command of that name does:

malmm_cli.batch.run("videos/", "captions.jsonl", model="tiny")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from malmm_cli import batch, evaluate, train
    from malmm_cli.errors import MalmmError
    from malmm_cli.events import Events
    from malmm_cli.pipeline.answer import ask, caption
    from malmm_cli.pipeline.loading import Model, load
    from malmm_cli.pipeline.memory_file import MemoryFile, remember
    from malmm_cli.pipeline.watch import Watched, watch
    from malmm_cli.settings import Settings
    from malmm_cli.types import Result, Segment, Task

__all__ = [
    "Events",
    "MalmmError",
    "MemoryFile",
    "Model",
    "Result",
    "Segment",
    "Settings",
    "Task",
    "Watched",
    "ask",
    "batch",
    "caption",
    "evaluate",
    "load",
    "remember",
    "train",
    "watch",
]
__version__ = "0.2.0"

_PACKAGES = ("batch", "evaluate", "train")
_HOMES = {
    **dict.fromkeys(("ask", "caption"), "pipeline.answer"),
    **dict.fromkeys(("Model", "load"), "pipeline.loading"),
    **dict.fromkeys(("MemoryFile", "remember"), "pipeline.memory_file"),
    **dict.fromkeys(("Watched", "watch"), "pipeline.watch"),
    **dict.fromkeys(("Result", "Segment", "Task"), "types"),
    "Events": "events",
    "MalmmError": "errors",
    "Settings": "settings",
}


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    """Import on first use: torch takes seconds, and `malmm --help` needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if name in _PACKAGES:
        return import_module(f"{__name__}.{name}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
