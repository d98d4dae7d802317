"""What the commands that run a model share: loading it, and where results go."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from malmm_cli.cli.console import complain, download_progress, emit, note, progress, warn
from malmm_cli.cli.options import RunOptions
from malmm_cli.errors import UsageError
from malmm_cli.files.jsonl import encoded
from malmm_cli.formats import (
    FORMATS,
    HEADERS,
    LINES,
    SUBTITLES,
    Failure,
    Item,
    check_writable,
    format_line,
    format_whole,
    open_whole,
)
from malmm_cli.processes.interrupts import held
from malmm_cli.settings import Settings

if TYPE_CHECKING:
    from malmm_cli.pipeline.loading import Model
    from malmm_cli.pipeline.watch import Progress

__all__ = [
    "load_model",
    "note_stages",
    "report",
    "results",
    "shown_progress",
    "shown_words",
]


def load_model(
    options: RunOptions, videos: Sequence[str] = (), settings: Settings | None = None
) -> Model:
    """Load the model that was asked for, and say once what runs where.

    A video that is alone and cannot be used as settings say is told before, since loading may be a
    long download.
    """
    from malmm_cli import media
    from malmm_cli.media.sampling import choose_for
    from malmm_cli.pipeline import loading
    from malmm_cli.pipeline.memory_file import is_memory_file

    files = [video for video in videos if is_memory_file(video)]
    if files:
        _check_free(options, files[0])
    elif len(videos) == 1 and settings is not None:
        choose_for(media.probe(videos[0], settings.sampling.decoder), settings.sampling)

    with download_progress(shown=not (options.quiet or options.no_progress)) as update:
        model = loading.load(
            options.model,
            device=options.device,
            dtype=options.dtype,
            quantize=options.quantize,
            offline=options.offline,
            on_note=None if options.quiet else note,
            on_progress=update,
        )
    if not options.quiet:
        note(f"{model.name} on {model.device}, {model.dtype}")
        if model.note:
            note(f"note: {model.name} is {model.note}")
    return replace(model, cache=options.feature_cache())


def _check_free(options: RunOptions, file: str) -> None:
    """Raise UsageError for options about what was decided when a memory file was made."""
    from malmm_cli.pipeline.memory_file import SAMPLING

    for name in SAMPLING:
        if getattr(options, name) is not None:
            flag = {"start": "from", "end": "to"}.get(name, name.replace("_", "-"))
            raise UsageError(
                f"--{flag}: {file} is a memory file, for which that was decided when it was made",
                hint="leave it out, or make the file anew: malmm remember VIDEO -o FILE",
            )


@contextmanager
def shown_progress(
    options: RunOptions, label: str, unit: str = "frames"
) -> Iterator[Progress | None]:
    """A progress bar, unless it was declined."""
    shown = not (options.quiet or options.no_progress)
    with progress(label, shown=shown, unit=unit) as update:
        yield update


@contextmanager
def shown_words(
    options: RunOptions, settings: Settings, label: str, *, alone: bool
) -> Iterator[tuple[Progress | None, Callable[[str], None] | None]]:
    """A progress bar and, on a terminal, what prints words of a text as they come.

    The latter is None unless the text is `alone`, comes without beams and is all that is printed.
    """
    plain = form_of(options) == "text" and options.output is None
    with ExitStack() as stack:
        update = stack.enter_context(shown_progress(options, label))

        def words(text: str) -> None:
            stack.close()  # the bar would be in the way
            emit(text)

        live = alone and plain and settings.decoding.beams == 1 and sys.stdout.isatty()
        yield update, words if live else None


@contextmanager
def results(
    options: RunOptions, videos: Sequence[str], *, questions: int = 1
) -> Iterator[Callable[..., None]]:
    """Takes items one by one; prints them as they come, or writes all at the end.

    Items that are `told` were printed word by word, and lack the end of their line. What is done
    when Ctrl-C comes is kept. Leaves with exit code 1 if some of several failed.
    """
    form = form_of(options)
    if form in SUBTITLES and len(videos) > 1:
        raise UsageError("subtitles are for one video", hint="give one, or use --format jsonl")
    output = None if str(options.output) == "-" else options.output
    if output:
        check_writable(output, overwrite=options.overwrite, inputs=videos)
    streams = form in LINES and output is None
    several = len(videos) * questions > 1
    items: list[Item] = []
    finished = False

    def finish() -> None:
        nonlocal finished
        if finished or streams or not items:
            return
        text = format_whole(items, form, several=several)
        with held():
            if output is None:
                emit(text)
            else:
                with open_whole(output) as file:
                    file.write(encoded(text))
            finished = True

    def add(item: Item, *, told: bool = False) -> None:
        if told:
            emit("\n")
        report(item, options)
        if streams and not told:
            header = "" if items else HEADERS.get(form, "")
            emit(header + format_line(item, form, several=several))
        items.append(item)

    try:
        yield add
        finish()
    except KeyboardInterrupt:
        finish()
        raise
    if any(isinstance(item, Failure) for item in items):
        raise typer.Exit(1)


def report(item: Item, options: RunOptions) -> None:
    """Say on stderr what a result does not show: failure, warnings, and times if asked for."""
    if isinstance(item, Failure):
        complain(item.error.message, item.error.hint)
        return
    if not options.quiet:
        for warning in item.warnings:
            warn(f"{item.video}: {warning}")
    if options.verbose:
        note_stages(item.video, item.frames, item.duration, item.seconds)


def note_stages(video: str, frames: int, duration: float, seconds: Mapping[str, float]) -> None:
    """Say how long each stage took."""
    stages = ", ".join(f"{stage} {spent:.2f} s" for stage, spent in seconds.items())
    note(f"{video}: {frames} frames of {duration:.1f} s; {stages}")


def form_of(options: RunOptions) -> str:
    """The form asked for, or that of the output's name, or plain text."""
    form = "json" if options.json and options.format is None else options.format
    if options.json and form != "json":
        raise UsageError(f"--json and --format {form} exclude each other", hint="give one of them")
    if form is None:
        suffix = options.output.suffix[1:].lower() if options.output else ""
        return suffix if suffix in FORMATS else "text"
    if form not in FORMATS:
        raise UsageError(f"unknown format {form!r}", hint=f"one of {', '.join(FORMATS)}")
    return form
