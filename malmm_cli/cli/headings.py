"""Commands whose help lists options under headings, and whose errors name sources of values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand

from malmm_cli.cli import config
from malmm_cli.errors import MalmmError, UsageError

__all__ = ["Grouped", "group"]

_EXIT_CODES = (
    "Exit codes: 0 done, 1 something failed, 2 wrong use or unusable input, "
    "130 interrupted, 143 terminated."
)

_OTHER = "Options"
_SHORT = 5  # so many options, --help included, need no headings
_HEADINGS = {
    "Model": ("model", "device", "dtype", "quantize", "offline"),
    "Video": ("frames", "fps", "max_frames", "start", "end", "decoder"),
    "Memory": ("memory", "policy", "merge", "mean", "fill", "look_again", "banks"),
    "Text": (
        *("prompt", "max_new_tokens", "beams", "sample", "temperature", "top_p"),
        *("length_penalty", "repetition_penalty", "seed"),
    ),
    "Output": (
        *("format", "json", "output", "overwrite", "quiet", "verbose", "no_progress"),
        *("sheet", "dump", "onto"),
    ),
    "Cache": ("cache", "cache_size", "full_hash", "no_cache"),
}
_HEADING = {name: heading for heading, names in _HEADINGS.items() for name in names}


class Grouped(TyperCommand):
    """A command that lists its options under headings, its own before the shared ones.

    An option declared with `rich_help_panel` goes under that heading.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; what is wrong with them names this command as where to look."""
        try:
            rest: list[str] = super().parse_args(ctx, args)
        except Exception as error:
            if getattr(error, "ctx", ctx) is None:
                vars(error)["ctx"] = ctx
            parameter = getattr(error, "param", None)
            if found := _origin(ctx, getattr(parameter, "name", None)):  # only switches fail here
                raise UsageError(f"{found} {found.value}: must be true or false") from error
            raise
        ctx.with_resource(_naming_origins(ctx))
        return rest

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The usage line's arguments, without typer's braces around required ones."""
        pieces: list[str] = super().collect_usage_pieces(ctx)
        return [piece.replace("{", "").replace("}", "") for piece in pieces]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, each under its heading; a short list gets a single one."""
        options = [one for one in self.get_params(ctx) if one.param_type_name == "option"]
        rows = [(_heading(one), one.get_help_record(ctx)) for one in options]
        records = [(heading, record) for heading, record in rows if record]
        if len(records) <= _SHORT:
            records = [(_OTHER, record) for _, record in records]
        own = [heading for heading, _ in records if heading not in (*_HEADINGS, _OTHER)]
        for heading in dict.fromkeys([*own, *_HEADINGS, _OTHER]):
            if found := [record for name, record in records if name == heading]:
                with formatter.section(heading):
                    formatter.write_dl(found)


@contextmanager
def _naming_origins(ctx: Any) -> Iterator[None]:
    """While a command runs, an error about an option's value tells what gave it, if no flag."""
    try:
        yield
    except MalmmError as error:
        found = _origin(ctx, error.option)
        if found and str(found.value) in error.message:
            error.message += f", from {found}"
        raise


def _origin(ctx: Any, name: str | None) -> config.Origin | None:
    """The origin of an option's value, where that is the environment or the config file."""
    source = ctx.get_parameter_source(name) if name else None
    kept = source is not None and source.name in ("ENVIRONMENT", "DEFAULT_MAP")
    return config.origin_of(name) if name in config.KEYS and kept else None


def _heading(option: Any) -> str:
    return option.rich_help_panel or _HEADING.get(option.name or "", _OTHER)


def group(*apps: typer.Typer) -> None:
    """Give every command of these its headings and, at the end of its help, the exit codes."""
    for app in apps:
        app.info.epilog = _EXIT_CODES
        for command in app.registered_commands:
            command.cls, command.epilog = Grouped, _EXIT_CODES
        for below in app.registered_groups:
            below.epilog = _EXIT_CODES
