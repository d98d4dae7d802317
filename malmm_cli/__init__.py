"""Caption long videos and answer questions about them with a memory of constant size.

import malmm_cli

model = malmm_cli.load("tiny")
print(malmm_cli.caption("video.mp4", model=model).text)
for answer in malmm_cli.ask("video.mp4", ["what moves?", "where to?"], model=model):
    print(answer.question, answer.text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from malmm_cli.errors import MalmmError
    from malmm_cli.pipeline.answer import ask, caption
    from malmm_cli.pipeline.loading import Model, load
    from malmm_cli.types import Result, Segment

__all__ = ["MalmmError", "Model", "Result", "Segment", "ask", "caption", "load"]
__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(("ask", "caption"), "pipeline.answer"),
    **dict.fromkeys(("Model", "load"), "pipeline.loading"),
    **dict.fromkeys(("Result", "Segment"), "types"),
    "MalmmError": "errors",
}


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    """Import on first use: torch takes seconds, and `malmm --help` needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
