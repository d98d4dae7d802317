"""What `malmm batch` does and says, from the plan to the morning after."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from malmm_cli.cli.console import complain, download_progress, emit, note, warn
from malmm_cli.cli.running import report, shown_progress
from malmm_cli.files.escapes import on_one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from malmm_cli.batch.job import Engine, Job, Outcome
    from malmm_cli.batch.loop import Tally
    from malmm_cli.batch.place import Place
    from malmm_cli.batch.plan import Sorted
    from malmm_cli.batch.worker import Setup
    from malmm_cli.cli.batch import BatchOptions
    from malmm_cli.settings import Settings
    from malmm_cli.types import Task

    Both = tuple[Settings, Settings]  # of captions, of questions

SHOWN = 5  # failures told again at the end
FILES, FILES_EACH = 16, 4  # open at once, besides for each worker
WEIGHTS = ("*.safetensors", "*.json", "qformer_tokenizer/*", "tokenizer.model", "spiece.model")


def dry_run(options: BatchOptions, place: Place, tasks: Sequence[Task], settings: Both) -> None:
    """Each item that would be done, and why, on stdout; how long and how much memory on stderr."""
    from malmm_cli import hub
    from malmm_cli.batch.lines import read_lines
    from malmm_cli.batch.plan import plan, sort_out
    from malmm_cli.batch.state import pace

    model = hub.describe(options.model)
    folder = Path(model["folder"]) if model["folder"] else None
    planned = plan(tasks, *settings, _about(options, model["name"], model["revision"], folder))
    found = sort_out(planned, {} if options.overwrite else read_lines(place.results).kept)
    todo = found.todo[: options.limit]
    for item, why in todo:
        gone = "" if os.path.exists(item.task.video) else ", no such file"
        emit(f"{on_one_line(item.task.id)}\t{why}{gone}\n")
    for item in found.gone:
        emit(f"{on_one_line(item.task.id)}\tno such file, earlier result kept\n")
    workers = options.workers or 1
    earlier = pace(place.state)
    later = _left_by_limit(options, found)
    note(f"{len(todo)} of {len(planned)} items to do{later}, {len(found.done)} done before")
    if earlier is None:
        note("time: unknown before the first run")
    else:
        took = span(earlier.seconds * len(todo) / workers)
        note(f"time: about {took}, at {earlier.seconds:.2g} s per item in the latest run")
    needs = [f"{hub.size_text(n)} in {d}" for d, n in model["memory"].items() if n is not None]
    held = f"; the latest run held {hub.size_text(earlier.memory)}" if earlier else ""
    note(f"memory: {workers} × weights of {', '.join(needs) or 'unknown size'}{held}")


def night(
    options: BatchOptions, setup: Setup, place: Place, tasks: Sequence[Task], settings: Both
) -> None:
    """Do all that is to be done; leaves with exit code 1 if anything failed."""
    from malmm_cli.batch import loop
    from malmm_cli.batch.ledger import check_folder, open_ledger
    from malmm_cli.batch.lines import read_lines
    from malmm_cli.batch.plan import jobs, plan, sort_out
    from malmm_cli.files.descriptors import allow

    allow(FILES + FILES_EACH * setup.workers, f"a batch with --workers {setup.workers}")
    planned = plan(tasks, *settings, _located(options))
    if not options.overwrite:
        lines = read_lines(place.results)  # looked at before anything is made, and once it is ours
        check_folder(place, lines, planned, [p for p in planned if p.task.id not in lines.kept])
    with place.locked():
        if options.overwrite:
            place.clear()
        lines = read_lines(place.results)
        found = sort_out(planned, lines.kept)
        todo = [item for item, _ in found.todo[: options.limit]]
        _tell_start(options, place, found, set(lines.kept) - {p.task.id for p in planned})
        begun, told = time.monotonic(), 0
        with (
            open_ledger(
                *(place, lines, planned, todo, setup.workers),
                overwrite=options.overwrite,
                on_warning=None if options.quiet else warn,
            ) as ledger,
            shown_progress(options, "", unit="items") as update,
        ):
            for collision in ledger.collisions if not options.quiet else ():
                note(collision)

            def done(job: Job, outcome: Outcome) -> None:
                nonlocal told
                told += len(outcome.items)
                for item in outcome.items[: 1 if outcome.error else None]:
                    report(item, options)
                if update:
                    update(told, len(todo))

            try:
                tally = loop.run(
                    jobs(todo),
                    _engine(options, setup),
                    ledger,
                    retry=options.retry,
                    fail_fast=options.fail_fast,
                    on_done=done,
                )
            except KeyboardInterrupt:
                note(f"finished items are in {place.results}; run the same command to resume")
                raise
    _tell_end(options, place, found, tally, time.monotonic() - begun)
    if tally.failed or found.gone:
        raise typer.Exit(1)


def _located(options: BatchOptions) -> dict[str, Any]:
    """What the model is, once it is here."""
    from malmm_cli import hub

    def check(parameters: int) -> None:
        from malmm_cli.pipeline.loading import must_spread

        must_spread(
            options.model,
            parameters,
            device=options.device,
            dtype=options.dtype,
            quantize=options.quantize,
        )

    with download_progress(shown=not (options.quiet or options.no_progress)) as update:
        located = hub.locate(
            options.model,
            offline=options.offline,
            on_note=None if options.quiet else note,
            on_progress=update,
            check_memory=check,
        )
    if located.note and not options.quiet:
        note(f"note: {located.name} is {located.note}")
    return _about(options, located.name, located.revision, located.folder)


def _about(
    options: BatchOptions, name: str, revision: str | None, folder: Path | None
) -> dict[str, Any]:
    """What decides a result besides video and settings."""
    from malmm_cli.files.fingerprint import folder_identity

    if revision is None and folder is not None:
        revision = folder_identity(folder, WEIGHTS)
    numbers = {"dtype": options.dtype, "quantize": options.quantize}
    return {"model": name, "revision": revision, **numbers}


def _engine(options: BatchOptions, setup: Setup) -> Engine:
    from malmm_cli.batch import pool, worker

    models: set[str] = set()

    def tell(about: str) -> None:
        if about not in models and not options.quiet:
            note(about)
        models.add(about)

    about: dict[str, Any] = {"timeout": setup.timeout, "on_start": tell}
    start = partial(worker.start, setup)
    if options.ray is None:
        return partial(pool.run, start=start, workers=setup.workers, **about)
    from malmm_cli.batch import cluster

    return partial(cluster.run, start=start, address=options.ray, workers=options.workers, **about)


def _tell_start(options: BatchOptions, place: Place, found: Sorted, strangers: set[str]) -> None:
    """What stands in the output, and what that means for this run."""
    for item in found.gone:
        complain(f"{item.task.video}: no such file; earlier result kept")
    if options.quiet:
        return
    for why in ("other settings", "another file"):
        number = sum(reason == why for _, reason in found.todo)
        if number:
            note(f"results of {why} in {place.results}, redone: {number}")
    if strangers:
        note(f"results of other items in {place.results}, kept: {len(strangers)}")


def _tell_end(
    options: BatchOptions, place: Place, found: Sorted, tally: Tally, took: float
) -> None:
    """The morning after, in a few lines."""
    if options.quiet:
        return
    before = f", {len(found.done)} done before" if found.done else ""
    failed = f", {tally.failed} failed" if tally.failed else ""
    todo = len(found.todo[: options.limit])
    left = todo - tally.done - tally.failed
    missing = f", {left} not started" if left else ""
    missing += _left_by_limit(options, found)
    name = place.folder or place.results
    note(f"{tally.done} of {todo} items done{failed}{missing}{before}: {name}")
    if tally.done + tally.failed:
        each = tally.seconds / (tally.done + tally.failed)
        note(f"took {span(took)}; {each:.2g} s per item")
    if tally.failed:
        kinds = ", ".join(f"{number} {kind}" for kind, number in tally.kinds.most_common())
        note(f"failed: {kinds}")
        for error in list(tally.errors.values())[:SHOWN]:
            note(f"- {error.message}")
        more = len(tally.errors) - SHOWN
        listed = f"; {more} more in {place.state}, table item" if more > 0 else ""
        note(f"run the same command to retry them{listed}")


def _left_by_limit(options: BatchOptions, found: Sorted) -> str:
    left = len(found.todo[options.limit :]) if options.limit else 0
    return f", {left} more left by --limit" if left else ""


def span(seconds: float) -> str:
    """A time as a person says it: 45 s, 12 min, 7 h 12 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
