"""What commands that run a model share: loading it and writing results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import typer

from malmm_cli.cli.console import emit
from malmm_cli.cli.options import RunOptions
from malmm_cli.cli.terminal import Terminal
from malmm_cli.cli.wrapping import wrapped
from malmm_cli.errors import MediaError, OutputError, UsageError
from malmm_cli.files.jsonl import encoded
from malmm_cli.formats import (
    FORMATS,
    HEADERS,
    LINES,
    STRUCTURED,
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
from malmm_cli.text.words import known_names

if TYPE_CHECKING:
    from malmm_cli.pipeline.features import Video
    from malmm_cli.pipeline.model import Model

__all__ = [
    "failing",
    "load_model",
    "probed",
    "results",
    "streams_words",
    "suggesting",
    "unusable",
]


def probed(options: RunOptions, videos: Sequence[str], settings: Settings) -> list[Video]:
    """Probe a single video, so that errors appear before the model is loaded.

    Several are probed one by one when it is their turn, so that one cannot hide the others.
    """
    if len(videos) > 1:
        return list(videos)
    events = Terminal.of(options)
    with events.stage(videos[0], ""), events.stage("opening", ""):
        from malmm_cli import media
        from malmm_cli.pipeline.memory_header import is_memory_file, read_metadata

        if is_memory_file(videos[0]):
            read_metadata(videos[0])
            return list(videos)
        with suggesting(videos[0]):
            info = media.probe(videos[0], settings.sampling.decoder)
        from malmm_cli.media.sampling import choose_for  # and numpy, for a video that is one

        choose_for(info, settings.sampling)
        return [info]


def unusable(options: RunOptions, videos: Sequence[str], task: str) -> dict[str, Failure]:
    """Failures of those of several videos whose paths alone show that; each is reported at once."""
    if len(videos) == 1:
        return {}
    from malmm_cli.batch.job import attempt
    from malmm_cli.media.files import check

    def work(video: str) -> Any:
        with suggesting(video):
            check(video)

    tried = {video: attempt(video, work, task) for video in videos}
    found = {video: item for video, item in tried.items() if isinstance(item, Failure)}
    for failure in found.values():
        Terminal.of(options).report(failure)
    return found


@contextmanager
def suggesting(video: str) -> Iterator[None]:
    """Have the error of a video that does not exist name one with a similar name."""
    try:
        yield
    except MediaError as error:
        if error.kind == "Missing":
            from malmm_cli.batch.missing import similar  # not needed for help

            error.hint = error.hint or similar(video)
        raise


def load_model(options: RunOptions) -> Model:
    """Load the model that was asked for, and say once what runs where."""
    events = Terminal.of(options)
    how = options.placement()
    with events.stage(options.model, ""), events.stage("loading", ""):  # torch takes seconds
        from malmm_cli.pipeline.precheck import check_absent

        check_absent(options.model, **how)
        from malmm_cli.pipeline import loading

        model = loading.load(options.model, **how, events=events)
    events.note(f"{model.name} on {model.device}, {model.dtype}")
    if model.origin.note:
        events.note(f"note: {model.name} is {model.origin.note}")
    return replace(model, cache=options.feature_cache())


def streams_words(options: RunOptions, settings: Settings) -> bool:
    """Whether a text that is all of the output can be printed word by word."""
    plain = form_of(options) == "text" and options.output is None
    return plain and settings.decoding.beams == 1 and sys.stdout.isatty()


@contextmanager
def results(
    options: RunOptions, videos: Sequence[str], *, several: bool
) -> Iterator[Callable[..., None]]:
    """Takes items one by one; prints them as they come, or writes all at the end.

    `several` says that more than one was asked for: JSON is a list then. Items that were
    `streamed`, word by word, lack the end of their line; failures that were `reported`, or will be
    `raised`, are not reported. What is done when Ctrl-C or an error comes is kept. Leaves with
    exit code 1 if some of several failed.
    """
    form = form_of(options)
    if form in SUBTITLES and len(videos) > 1:
        raise UsageError(
            "subtitles need exactly one video", hint="give one video, or use --format jsonl"
        )
    output = None if str(options.output) == "-" else options.output
    if output:
        check_writable(output, overwrite=options.overwrite, inputs=videos)
    streams = form in LINES and output is None
    events = Terminal.of(options)
    items: list[Item] = []
    finished = False

    def finish() -> None:
        nonlocal finished
        if finished or streams or not items:
            return
        text = format_whole(items, form, several=several)
        with held():
            finished = True
            if output is None:
                emit(text)
            else:
                _write(text, output, overwrite=options.overwrite)

    def add(
        item: Item, *, streamed: bool = False, raised: bool = False, reported: bool = False
    ) -> None:
        if streamed:
            emit("\n")
        if raised and form not in STRUCTURED:
            return
        if not (raised or reported):
            events.report(item)
        if streams and not streamed:
            header = "" if items else HEADERS.get(form, "")
            line = format_line(item, form, several=several)
            emit(header + (wrapped(line) if form == "text" else line))
        items.append(item)

    try:
        yield add
        finish()
    except (KeyboardInterrupt, Exception):
        finish()
        raise
    if any(isinstance(item, Failure) for item in items):
        raise typer.Exit(1)


def _write(text: str, output: Path, *, overwrite: bool) -> None:
    """Write the results; where that cannot be, print them, and raise OutputError all the same."""
    try:
        with open_whole(output, replace=overwrite) as file:
            file.write(encoded(text))
    except OutputError as error:
        error.hint = "the result is printed on stdout instead"
        emit(text)
        raise


@contextmanager
def failing(
    add: Callable[..., None],
    videos: Sequence[str],
    task: str,
    questions: int = 1,
    *,
    but: type[Exception] = typer.Exit,
    known: Mapping[str, Failure] = MappingProxyType({}),
) -> Iterator[None]:
    """Give an error to `add` too, once for each question about each video, and pass it on.

    Of videos whose failure is `known` that is given instead. Errors of the kind `but` are only
    passed on: by default, that the reader of streamed words went away. For the model it is
    UsageError, since a wrong option is no failure of a video.
    """
    from malmm_cli.batch.job import as_malmm_error

    try:
        yield
    except but:
        raise
    except Exception as error:
        for video in videos:
            for _ in range(questions):
                failure = known.get(video) or Failure(video, task, as_malmm_error(video, error))
                add(failure, raised=True)
        raise


def form_of(options: RunOptions) -> str:
    """The form asked for, or that of the output's name, or plain text."""
    form = "json" if options.json and options.format is None else options.format
    if options.json and form != "json":
        raise UsageError(
            f"--json and --format {form} exclude each other", hint="use only one of them"
        )
    if form is None:
        suffix = options.output.suffix[1:].lower() if options.output else ""
        return suffix if suffix in FORMATS else "text"
    if form not in FORMATS:
        raise UsageError(f"unknown format {form!r}", hint=known_names(form, FORMATS))
    return form
