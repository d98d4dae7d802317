"""The command line: options, one call, print; nothing else prints or exits.

Results go to stdout, everything else to stderr. Heavy imports happen inside the commands, so that
help is instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from malmm_cli.cli import (
    ask,
    batch,
    bench,
    cache,
    caption,
    colors,
    completion,
    config,
    convert,
    doctor,
    frames,
    models,
    remember,
    synth,
    train,
)
from malmm_cli.cli import eval as evaluation
from malmm_cli.cli.console import complain, note
from malmm_cli.cli.headings import group
from malmm_cli.cli.launched import check_launch, is_beside
from malmm_cli.cli.numbers import check_numbers
from malmm_cli.errors import MalmmError
from malmm_cli.files.descriptors import HINT, ran_out
from malmm_cli.processes import interrupts
from malmm_cli.text.words import nearest

__all__ = ["app", "run"]

app = typer.Typer(
    # no colours of the parser's own: a terminal's stream escapes them
    context_settings={"help_option_names": ["-h", "--help"], "color": False},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Caption long videos and answer questions about them, in constant memory.",
)
_COMMANDS = (
    *(caption.caption, ask.ask, remember.remember, batch.batch, frames.frames, convert.convert),
    doctor.doctor,
)
for command in _COMMANDS:
    app.command()(command)
app.command()(train.train)
app.command("eval")(evaluation.evaluate)
app.command()(synth.synth)
app.add_typer(models.app, name="models")
app.add_typer(cache.app, name="cache")
app.add_typer(bench.app, name="bench")

_ENDS = {130: "interrupted", 143: "terminated", 129: "hung up"}
# what a command has in place of an option of others
_INSTEAD = {("malmm batch", "--json"): "-o FILE.jsonl has one JSON object per item"}
_ClickError: Any = typer.BadParameter.mro()[2]  # every wrong use that the parser finds


def _print_version(wanted: bool) -> None:
    if wanted:
        from malmm_cli import __version__

        typer.echo(f"malmm {__version__}")
        raise typer.Exit


def _choose_color(context: typer.Context, given: str | None) -> None:
    if not context.resilient_parsing:
        colors.choose(given)


@app.callback()
def _malmm(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "-V",
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
    color: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(colors.CHOICES),
            callback=_choose_color,
            is_eager=True,  # errors of the parser are coloured too
            help="Colour messages; also after the command.",
            autocompletion=completion.one_of(colors.CHOICES),
        ),
    ] = None,
) -> None:
    context.default_map = config.defaults(context.command)


@app.command("help")
def show_help(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", show_default=False, autocompletion=completion.commands),
    ] = None,
) -> None:
    """Show the help of a command."""
    app([*(words or ()), "--help"], prog_name="malmm", standalone_mode=False)


group(app, models.app, cache.app, bench.app)
check_numbers(app, models.app, cache.app, bench.app)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (default: the process's own) ask for; return its exit code.

    0 done, 1 something failed, 2 wrong use or an input that cannot be used, 130 Ctrl-C,
    143 SIGTERM, 129 SIGHUP.
    """
    given = sys.argv[1:] if arguments is None else arguments
    colors.forget()
    try:
        check_launch(given)
        completion.check_shell(given)
        code = app(_color_first(given) or ["--help"], prog_name="malmm", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except SystemExit as ended:
        code = ended.code if completion.is_completing() else 0  # fish asks by the exit code
    except typer.Exit:  # a reader of help that went away; a process that says nothing
        code = 0
    except Exception as error:
        if not interrupts.came():
            return _complain(error, given)
    if number := interrupts.came():  # which something may have taken for another error
        code = 128 + number
    if code in _ENDS:
        note(_ENDS[code])
    return code if isinstance(code, int) else 0


def _color_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with --color, wherever it stands before a "--", in front of the command."""
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    color: list[str] = []
    rest: list[str] = []
    given = iter(arguments[:end])
    for argument in given:
        if argument == "--color":
            color = [argument, *([value] if (value := next(given, None)) is not None else [])]
        elif argument.startswith("--color="):
            color = [argument]
        else:
            rest.append(argument)
    return [*color, *rest, *arguments[end:]]


def _complain(error: Exception, arguments: Sequence[str]) -> int:
    """Say what went wrong, and return the exit code; raises what is a fault of ours."""
    if isinstance(error, MalmmError):
        complain(error.message, error.hint)
        return error.exit_code
    if ran_out(error):
        complain("too many open files", HINT)
        return 1
    if isinstance(error, _ClickError):
        if is_beside():
            return 0
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "malmm"
        dashed = next((a for a in arguments if a.startswith("-") and os.path.isfile(a)), None)
        hint = f"for the file, write ./{dashed}" if dashed else f"`{path} -h` shows how it is used"
        complain(_message(error), _INSTEAD.get((path, getattr(error, "option_name", "")), hint))
        return 2
    raise error


def _message(error: Any) -> str:
    """What the parser says; it also takes options for alike that share the dashes alone."""
    if near := getattr(error, "possibilities", None):  # only of an option that does not exist
        wrong = error.option_name.strip("-")
        error.possibilities = [name for name in near if nearest(wrong, [name.strip("-")])]
    return str(error.format_message())
