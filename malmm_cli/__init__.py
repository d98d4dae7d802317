"""Caption long videos and answer questions about them with a memory of constant size.

import malmm_cli

print(malmm_cli.caption("video.mp4", model="tiny").text)
model = malmm_cli.load("tiny")  # once, for several calls
for answer in malmm_cli.ask("video.mp4", ["what moves?", "where to?"], model=model):
    print(answer.question, answer.text)

`batch`, `evaluate` and `train` are packages whose `run` does what the command of that name does;
`batch(…)` itself is `batch.run(…)`:

malmm_cli.batch("videos/", "captions.jsonl", model="tiny")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from malmm_cli import evaluate, train
    from malmm_cli.batch import Package
    from malmm_cli.errors import (
        ArgumentError,
        CapacityError,
        MalmmError,
        MediaError,
        ModelError,
        OutputError,
        UsageError,
    )
    from malmm_cli.events import Events
    from malmm_cli.media.contact_sheet import FrameInfo, Frames
    from malmm_cli.pipeline.answer import ask, caption
    from malmm_cli.pipeline.frames import frames
    from malmm_cli.pipeline.loading import load
    from malmm_cli.pipeline.memory_file import MemoryFile
    from malmm_cli.pipeline.model import Model
    from malmm_cli.pipeline.remembering import remember
    from malmm_cli.pipeline.watch import Watched, watch
    from malmm_cli.settings import Decoding, MemoryOptions, Sampling, Settings
    from malmm_cli.types import MediaInfo, Result, Segment, Task

    batch: Package

__all__ = [
    "ArgumentError",
    "CapacityError",
    "Decoding",
    "Events",
    "FrameInfo",
    "Frames",
    "MalmmError",
    "MediaError",
    "MediaInfo",
    "MemoryFile",
    "MemoryOptions",
    "Model",
    "ModelError",
    "OutputError",
    "Result",
    "Sampling",
    "Segment",
    "Settings",
    "Task",
    "UsageError",
    "Watched",
    "ask",
    "batch",
    "caption",
    "evaluate",
    "frames",
    "load",
    "remember",
    "train",
    "watch",
]
__version__ = "0.2.0"

_CALLS = ("ask", "caption", "frames", "load", "remember", "watch")
_PACKAGES = ("batch", "evaluate", "train")
_HOMES = {
    **dict.fromkeys(("ask", "caption"), "pipeline.answer"),
    "Model": "pipeline.model",
    "load": "pipeline.loading",
    "MemoryFile": "pipeline.memory_file",
    "remember": "pipeline.remembering",
    **dict.fromkeys(("Watched", "watch"), "pipeline.watch"),
    **dict.fromkeys(("FrameInfo", "Frames"), "media.contact_sheet"),
    **dict.fromkeys(("MediaInfo", "Result", "Segment", "Task"), "types"),
    **dict.fromkeys(("Decoding", "MemoryOptions", "Sampling", "Settings"), "settings"),
    **dict.fromkeys(("ArgumentError", "CapacityError", "MalmmError", "MediaError"), "errors"),
    **dict.fromkeys(("ModelError", "OutputError", "UsageError"), "errors"),
    "Events": "events",
    "frames": "pipeline.frames",
}


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


if not TYPE_CHECKING:  # which knows all names from above, and so sees a wrong one

    def __getattr__(name: str) -> Any:
        """Import on first use: torch takes seconds, and `malmm --help` needs none of it."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        if name in _PACKAGES:
            return import_module(f"{__name__}.{name}")
        found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        if name not in _CALLS:
            return found
        from malmm_cli.calls import public

        return globals().setdefault(name, public(found))
