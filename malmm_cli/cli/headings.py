"""Help that lists the options of a command under headings."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

__all__ = ["Grouped", "group"]

_EXIT_CODES = (
    "Exit codes: 0 done, 1 something failed, 2 wrong use or unusable input, "
    "130 interrupted, 143 terminated."
)

_OTHER = "Options"
_HEADINGS = {
    "Model": ("model", "device", "dtype", "quantize", "offline"),
    "Video": ("frames", "fps", "max_frames", "start", "end", "decoder"),
    "Memory": ("memory", "policy", "banks"),
    "Text": (
        *("prompt", "max_new_tokens", "beams", "sample", "temperature", "top_p"),
        *("length_penalty", "repetition_penalty", "seed"),
    ),
    "Output": (
        *("format", "json", "output", "overwrite", "quiet", "verbose", "no_progress"),
        *("sheet", "dump"),
    ),
    "Cache": ("cache", "cache_size", "full_hash", "no_cache"),
}
_HEADING = {name: heading for heading, names in _HEADINGS.items() for name in names}


class Grouped(TyperCommand):
    """A command whose own options come first, then the shared ones under headings."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, each under its heading."""
        found: dict[str, list[tuple[str, str]]] = {name: [] for name in (_OTHER, *_HEADINGS)}
        options = (one for one in self.get_params(ctx) if one.param_type_name == "option")
        for parameter in options:
            if record := parameter.get_help_record(ctx):
                found[_HEADING.get(parameter.name or "", _OTHER)].append(record)
        for heading, records in found.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def group(*apps: typer.Typer) -> None:
    """Give every command of these its headings and, at the end of its help, the exit codes."""
    for app in apps:
        app.info.epilog = _EXIT_CODES
        for command in app.registered_commands:
            command.cls, command.epilog = Grouped, _EXIT_CODES
        for below in app.registered_groups:
            below.epilog = _EXIT_CODES
