"""The command `malmm batch`."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from malmm_cli.cli.console import emit, keyboard, note
from malmm_cli.cli.log import logged
from malmm_cli.cli.memory_files import is_given
from malmm_cli.cli.options import RunOptions, seconds, with_options
from malmm_cli.cli.terminal import Terminal
from malmm_cli.cli.wrapping import wrapped
from malmm_cli.files.escapes import on_one_line
from malmm_cli.text.words import counted

if TYPE_CHECKING:
    from malmm_cli.batch import DryRun, Options, Summary
    from malmm_cli.events import Events

_GIB = 2**30
SHOWN = 20  # failures that are printed as they happen, unless quiet


def _named(metavar: str, text: str, *flags: str, panel: str = "Batch", **keywords: Any) -> Any:
    return typer.Option(*flags, metavar=metavar, help=text, rich_help_panel=panel, **keywords)


def _flag(text: str, *flags: str) -> Any:
    return typer.Option(*flags, help=text, rich_help_panel="Batch")


@dataclass(frozen=True)
class BatchOptions(RunOptions):
    """Values of the shared options and of batch's own."""

    questions: Annotated[
        list[str] | None,
        _named("QUESTION", "Question about each video; repeatable.", "--ask", panel="Text"),
    ] = None
    include: Annotated[
        list[str] | None,
        _named("GLOB", "Only videos below INPUT folders that match; repeatable.", "--include"),
    ] = None
    exclude: Annotated[
        list[str] | None,
        _named("GLOB", "Skip what matches below INPUT folders; repeatable.", "--exclude"),
    ] = None
    log: Annotated[
        Path | None, _named("FILE", "Append every event with its time to FILE.", "--log")
    ] = None
    null: Annotated[
        bool,
        _flag("Names on stdin are separated by NUL (find -print0).", "-0", "--null"),
    ] = False
    workers: Annotated[
        int | None, _named("N", "Number of processes with a model each; GPUs in turn.", min=1)
    ] = None
    ray: Annotated[str | None, _named("ADDRESS", "Run on a Ray cluster: auto, or its address.")] = (
        None
    )
    retry: Annotated[int, _named("N", "Retry a failed item up to N times.", min=0)] = 0
    timeout: Annotated[
        float | None, _named("S", "Time limit for one video, in seconds.", min=0.001)
    ] = None
    limit: Annotated[int | None, _named("N", "Process at most N items.", min=1)] = None
    fail_fast: Annotated[bool, _flag("Stop at the first failure.", "--fail-fast")] = False
    retry_failed: Annotated[
        bool, _flag("Retry files known to be broken; by default skipped.", "--retry-failed")
    ] = False
    beside: Annotated[
        bool,
        typer.Option(
            "--beside",
            help="Write a file beside each video, by default clip.srt.",
            rich_help_panel="Output",
        ),
    ] = False
    dry_run: Annotated[bool, _flag("Show what would be done.", "--dry-run")] = False
    max_megapixels: Annotated[
        float, _named("N", "Maximum picture size, in million pixels.", panel="Limits", min=0)
    ] = 100.0
    max_duration: Annotated[str, _named("T", "Maximum length of a video.", panel="Limits")] = (
        "24:00:00"
    )
    max_decoded: Annotated[
        float, _named("GIB", "Maximum size of a video's decoded frames.", panel="Limits", min=0)
    ] = 1024.0
    max_memory: Annotated[
        float, _named("GIB", "Memory limit of the decoding process.", panel="Limits", min=0)
    ] = 8.0

    def for_batch(self) -> Options:
        """Keyword arguments of `malmm_cli.batch.run`."""
        from malmm_cli.media.sandbox import Limits

        return {
            **self.changes(),
            "questions": self.questions or (),
            "listed": sys.stdin,
            "null": self.null,
            "include": self.include or (),
            "exclude": self.exclude or (),
            "format": self.format,
            "model": self.model,
            "device": self.device,
            "dtype": self.dtype,
            "quantize": self.quantize,
            "offline": self.offline,
            "workers": self.workers,
            "ray": self.ray,
            "timeout": self.timeout,
            "retry": self.retry,
            "limit": self.limit,
            "fail_fast": self.fail_fast,
            "retry_failed": self.retry_failed,
            "beside": self.beside,
            "overwrite": self.overwrite,
            "cache": self.cache,
            "cache_size": self.cache_size,
            "full_hash": self.full_hash,
            "limits": Limits(
                pixels=int(self.max_megapixels * 1e6),
                duration=seconds("--max-duration", self.max_duration) or 0.0,
                decoded=int(self.max_decoded * _GIB),
                memory=int(self.max_memory * _GIB),
            ),
        }


@with_options("caption", without=("output", "json"), kind=BatchOptions)
def batch(
    context: typer.Context,
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", show_default=False)],
    output: Annotated[
        str | None,
        _named(
            "FILE.jsonl|.csv|.tsv|FOLDER/",
            "File or folder for results.",
            "-o",
            "--output",
            panel="Output",
            show_default=False,
        ),
    ] = None,
    *,
    options: BatchOptions,
) -> None:
    """Caption or question many videos.

    An INPUT is a folder, a file, a glob pattern, or - for a list of paths on stdin.

    An INPUT ending in .jsonl holds tasks: one JSON object per line, with id, video, and question or
    prompt. Questions use the defaults of `malmm ask`.

    Results go to FILE.jsonl, one line as soon as an item is done; to FILE.csv or FILE.tsv, a table
    written when the run ends; or to FOLDER/, one file per video in the format of --format, below
    the same folders as in INPUT. With --beside that file is beside the video instead. Rerun the
    same command to process missing, failed or changed items; files known to be broken are skipped.

    --include and --exclude take patterns as in .gitignore and apply to INPUT folders only.

    \b
    malmm batch holidays/ -o captions.jsonl
    malmm batch archive/ --beside
    malmm batch "talks/**/*.mkv" -o talks/ --format srt --workers 2
    malmm batch clips/ -o answers.jsonl --ask "who is there?" --ask "where is it?"
    find . -name "*.mp4" | malmm batch - -o captions.jsonl --timeout 600 --retry 1
    """
    from malmm_cli.pipeline.memory_header import only_maker

    arguments = options.for_batch()
    if not is_given(context, "model") and only_maker(inputs):
        del arguments["model"]
    from malmm_cli.batch import runner

    if "-" in inputs and not options.quiet:
        keyboard("names of videos")
    if options.dry_run:
        _print_dry_run(runner.dry_run(inputs, output, events=Terminal.of(options), **arguments))
        return
    printed = math.inf if options.quiet else SHOWN  # quiet, no summary says where the others are
    with logged(Terminal.of(options, printed=printed), options.log) as events:
        summary = runner.run(inputs, output, events=events, **arguments)
        _report(summary, events)
        if not summary.complete:
            raise typer.Exit(1)


def _print_dry_run(found: DryRun) -> None:
    """Each item that would be done, and why, on stdout; how long and how much memory on stderr."""
    from malmm_cli.hub import size_text

    for item, why, exists in found.todo:
        emit(wrapped(f"{on_one_line(item)}\t{why}{'' if exists else ', no such file'}\n"))
    for item in found.gone:
        emit(wrapped(f"{on_one_line(item)}\tno such file, earlier result kept\n"))
    limited = _limited(found.limited)
    note(
        f"{len(found.todo)} of {counted(found.items, 'item')} to do{limited}, "
        f"{found.done_before} done before"
    )
    if found.broken:
        note(_broken(found.broken))
    earlier = found.pace
    if earlier is None or found.seconds is None:
        note("time: unknown before the first run")
    else:
        took = span(found.seconds)
        note(f"time: about {took}, at {earlier.seconds:.2g} s per item in the latest run")
    needs = [f"{size_text(n)} in {d}" for d, n in found.memory.items() if n is not None]
    held = f"; the latest run held {size_text(earlier.memory)}" if earlier else ""
    note(f"memory: {found.workers} × weights of {', '.join(needs) or 'unknown size'}{held}")


def _report(summary: Summary, events: Events) -> None:
    """What became of the batch, in a few lines."""
    before = f", {summary.done_before} done before" if summary.done_before else ""
    failed = f", {summary.failed} failed" if summary.failed else ""
    over = summary.done + summary.failed
    missing = f", {summary.todo - over} not started" if summary.todo > over else ""
    missing += _limited(summary.limited)
    name = summary.paths.folder or summary.paths.table or summary.paths.results
    some = f"{summary.done} of {counted(summary.todo, 'item')} done"
    done = some if summary.todo else "nothing left to do"
    events.note(f"{done}{failed}{missing}{before}: {name}")
    if summary.broken:
        events.note(_broken(summary.broken))
    if over:
        events.note(f"took {span(summary.seconds)}; {summary.worker_seconds / over:.2g} s per item")
    if summary.failed:
        kinds = ", ".join(f"{number} {kind}" for kind, number in summary.kinds.most_common())
        events.note(f"failed: {kinds}")
        if summary.failed > SHOWN:
            events.note(f"all of them are listed in {summary.paths.state}, table item")
        events.note(_how_to_retry(summary))


def _how_to_retry(summary: Summary) -> str:
    broken, blocked = summary.failed_for_good, summary.blocked
    if blocked == summary.failed:
        return "later runs skip these videos while such files are beside them"
    if broken + blocked == summary.failed:
        return "later runs skip files that are broken themselves, unless --retry-failed is given"
    more = "; files that are broken themselves need --retry-failed" if broken else ""
    return f"run the same command to retry them{more}"


def _broken(number: int) -> str:
    """How many known failures were skipped, and how to retry them."""
    return f"{counted(number, 'known failure')} skipped; --retry-failed tries again"


def _limited(number: int) -> str:
    return f", {number} more left by --limit" if number else ""


def span(seconds: float) -> str:
    """A time as a person says it: 45 s, 12 min, 7 h 12 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
