"""The library calls: a whole batch, and what one would do."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from malmm_cli import hub
from malmm_cli.batch import cluster, loop, pool, worker
from malmm_cli.batch.arguments import Inputs, Options, as_paths, check_values
from malmm_cli.batch.beside import chosen_paths, own_files, spared, sparing
from malmm_cli.batch.identity import Weights
from malmm_cli.batch.inputs import find_tasks, folder_below
from malmm_cli.batch.job import Engine
from malmm_cli.batch.ledger import check_folder, open_ledger
from malmm_cli.batch.lines import Lines, read_lines
from malmm_cli.batch.paths import OutputPaths
from malmm_cli.batch.patterns import Patterns
from malmm_cli.batch.plan import Planned, Sorted, jobs, plan, sort_out
from malmm_cli.batch.reports import Once, report_earlier
from malmm_cli.batch.state import pace
from malmm_cli.batch.summary import DryRun, Summary
from malmm_cli.batch.worker import Setup
from malmm_cli.errors import MalmmError, UsageError
from malmm_cli.events import SILENT, Events
from malmm_cli.files.descriptors import allow
from malmm_cli.media.sandbox import Limits
from malmm_cli.models.placement import check_packages
from malmm_cli.pipeline.defaults import defaults_of
from malmm_cli.pipeline.memory_header import only_maker
from malmm_cli.processes.children import leave_import
from malmm_cli.settings import Settings, by_kind, caption_prompt
from malmm_cli.types import Task

if TYPE_CHECKING:
    from malmm_cli.pipeline.feature_cache import FeatureCache

__all__ = ["Options", "dry_run", "run"]

FILES, FILES_EACH = 16, 4  # open at once, besides for each worker
RESUME = "run the same command to resume"


def run(
    inputs: Inputs,
    output: str | Path | None = None,
    *,
    events: Events = SILENT,
    **options: Unpack[Options],
) -> Summary:
    """Caption every video of the inputs, or ask `questions` about each, as `malmm batch` does.

    Inputs are folders, files, glob patterns, files of tasks (.jsonl), and "-" for the paths
    `listed`, separated by NUL with `null`. `include` and `exclude` are gitignore patterns for paths
    below each input folder. The output is FILE.jsonl, or a folder, which exists or whose name ends
    in a slash and gets a file for each video in the `format` (default: text); or, with `beside`, a
    file beside each video (default: srt). Items that have a
    result in the output are not done again, nor, without `retry_failed`, those whose file failed.
    `timeout` is in seconds for one video, `cache_size` in GB; `cache` is a folder for features of
    frames.

    A video that fails is reported to `events`, counted, and stops no other. Raises UsageError for
    wrong arguments and for an output that another run is writing, ModelError and CapacityError
    where the model cannot be loaded, OutputError where results cannot be written. Without a
    `model`, memory files alone are read by the one that made all of them. After Ctrl-C or
    an error, what was done is in the output, and the same call resumes.
    """
    leave_import()
    return _batch(inputs, output, options).run(events)


def dry_run(
    inputs: Inputs,
    output: str | Path | None = None,
    *,
    events: Events = SILENT,
    **options: Unpack[Options],
) -> DryRun:
    """What `run` would do with the same arguments; loads no model and writes nothing."""
    return _batch(inputs, output, options).dry_run(events)


def _batch(inputs: Inputs, output: str | Path | None, options: Options) -> _Batch:
    given: dict[str, Any] = {**options}
    if "model" not in given and (made := only_maker(as_paths(inputs))):
        given["model"] = made
    if "model" in given:
        given["model"] = os.fspath(given["model"])
    own = {f.name: given.pop(f.name) for f in fields(_Batch) if f.name in given}
    check_values(own)
    given_output = None if output is None else os.fspath(output)
    return _Batch(as_paths(inputs), given_output, given, **own)


@dataclass(frozen=True)
class _Batch:
    """What is to be done, where results go, and how."""

    inputs: list[str]
    output: str | None
    changes: dict[str, Any]
    questions: Sequence[str] = ()
    listed: Iterable[str] = ()
    null: bool = False
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    format: str | None = None
    model: str = "vicuna-7b"
    device: str = "auto"
    dtype: str = "auto"
    quantize: str | None = None
    offline: bool = False
    workers: int | None = None
    ray: str | None = None
    timeout: float | None = None
    retry: int = 0
    limit: int | None = None
    fail_fast: bool = False
    retry_failed: bool = False
    beside: bool = False
    overwrite: bool = False
    cache: str | Path | None = None
    cache_size: float = 20.0
    full_hash: bool = False
    limits: Limits = field(default_factory=Limits)

    def run(self, events: Events) -> Summary:
        """Do all that is to be done."""
        request, setup = self._request(events), self._setup()
        paths = request.paths
        allow(FILES + FILES_EACH * setup.workers, f"a batch with --workers {setup.workers}")
        planned = self._placed(self._planned(request.tasks, self._identity(request, events)), paths)
        with self._locked(request, planned) as lines:
            found, refused = self._sorted(paths, planned, lines)
            now = found.todo[: self.limit]
            todo = [item for item, _ in now]
            report_earlier(paths, planned, lines, replace(found, todo=now), events)
            begun = time.monotonic()
            with (
                _reported(events, paths.results),
                open_ledger(
                    *(paths, lines, planned, todo, setup.workers),
                    overwrite=self.overwrite,
                    events=events,
                ) as ledger,
                events.stage("batch", "items"),
            ):
                engine = sparing(self._engine(setup, Once(events)), refused)
                tally = loop.run(
                    *(jobs(todo), engine, ledger),
                    retry=self.retry,
                    fail_fast=self.fail_fast,
                    events=events,
                )
        return Summary(
            paths=paths,
            todo=len(todo),
            done=tally.done,
            failed=tally.failed,
            done_before=len(found.done),
            limited=len(found.todo) - len(todo),
            broken=len(found.broken),
            gone=tuple(item.task.video for item in found.gone),
            seconds=time.monotonic() - begun,
            worker_seconds=tally.seconds,
            errors=tally.errors,
            kinds=tally.kinds,
        )

    def dry_run(self, events: Events) -> DryRun:
        """Compare what is asked for with what is in the output."""
        request = self._request(events)
        model = hub.describe(self.model)
        paths = request.paths
        planned = self._placed(self._planned(request.tasks, self._weights().known(model)), paths)
        found, _ = self._sorted(paths, planned, request.lines)
        todo = found.todo[: self.limit]
        return DryRun(
            todo=[(i.task.id, why, os.path.exists(i.task.video)) for i, why in todo],
            gone=[item.task.id for item in found.gone],
            items=len(planned),
            done_before=len(found.done),
            limited=len(found.todo) - len(todo),
            broken=len(found.broken),
            workers=self.workers or 1,
            memory=model["memory"],
            pace=pace(paths.state),
        )

    def _request(self, events: Events) -> _Request:
        """Find the items; refuses wrong settings, as far as the model is known."""
        self._settings(())
        if self.null and "-" not in self.inputs:
            raise UsageError(
                "-0 applies to a list on stdin, but no INPUT is -", hint="add -, or leave out -0"
            )
        paths = chosen_paths(
            *(self.output, self.format, self.inputs), beside=self.beside, overwrite=self.overwrite
        )
        lines = Lines() if self.overwrite else read_lines(paths.results)
        tasks = find_tasks(
            *(self.inputs, self.listed, self.questions, paths.base, events),
            patterns=self._patterns(),
            null=self.null,
            known=lines.kept,
            own=own_files(paths, lines.kept),
        )
        self._settings(tasks)
        return _Request(paths, tasks, lines)

    def _settings(self, tasks: Sequence[Task]) -> tuple[Settings, Settings]:
        """Settings for captions and for questions: the model's defaults with the changes."""
        defaults = defaults_of(self.model)
        for_questions, for_captions = by_kind(self.changes)
        asked = {task.question is not None for task in tasks}
        if asked == {True}:
            for_questions = self.changes
        elif asked == {False}:
            caption_prompt(defaults.settings("caption", **self.changes))
        captions = defaults.settings("caption", **for_captions)
        return captions, defaults.settings("ask", **for_questions)

    def _identity(self, request: _Request, events: Events) -> dict[str, Any]:
        """The identity of the model, which is downloaded unless no video is left to do with it."""
        model = hub.describe(self.model, files=False)
        if not model["here"] and model["revision"]:
            identity = self._weights().known(model)
            planned, kept = self._planned(request.tasks, identity), request.lines.kept
            todo = sort_out(planned, kept, retry_failed=self.retry_failed).todo
            if not any(os.path.exists(item.task.video) for item, _ in todo):
                return identity
        return self._weights().located(here=model["here"], offline=self.offline, events=events)

    def _planned(self, tasks: Sequence[Task], identity: dict[str, Any]) -> list[Planned]:
        """The items with their settings and digests; `identity` is that of the model."""
        return plan(tasks, *self._settings(tasks), identity)

    def _sorted(
        self, paths: OutputPaths, planned: list[Planned], lines: Lines
    ) -> tuple[Sorted, Mapping[str, MalmmError]]:
        """What is to be done, and why some of its videos can have no file."""
        again = self.retry_failed
        found = sort_out(planned, lines.kept, retry_failed=again)
        return spared(paths, lines, planned, found, retry_failed=again)

    def _placed(self, planned: list[Planned], paths: OutputPaths) -> list[Planned]:
        """The items with the folders of their videos below the inputs, which the output mirrors."""
        folders = [given for given in self.inputs if os.path.isdir(given)]
        if self.beside:
            folders = [str(paths.base)]
        return [replace(item, below=folder_below(folders, item.task.video)) for item in planned]

    def _patterns(self) -> Patterns:
        if (self.include or self.exclude) and not any(map(os.path.isdir, self.inputs)):
            raise UsageError(
                "--include and --exclude apply to folders, but no INPUT is one",
                hint="leave them out, or give a folder",
            )
        return Patterns(self.include, self.exclude)

    def _setup(self) -> Setup:
        if self.ray is None:
            check_packages(self.quantize)
        return Setup(
            model=self.model,
            device=self.device,
            dtype=self.dtype,
            quantize=self.quantize,
            workers=1 if self.ray else self.workers or 1,
            timeout=self.timeout or math.inf,
            full_hash=self.full_hash,
            cache=self._cache(),
            limits=self.limits,
        )

    def _cache(self) -> FeatureCache | None:
        if self.cache is None:
            return None
        from malmm_cli.pipeline.feature_cache import FeatureCache

        limit = int(min(self.cache_size, 1e9) * 1e9)
        return FeatureCache(Path(self.cache).expanduser(), limit, self.full_hash)

    def _weights(self) -> Weights:
        return Weights(self.model, self.device, self.dtype, self.quantize)

    @contextmanager
    def _locked(self, request: _Request, planned: Sequence[Planned]) -> Iterator[Lines]:
        """Lock the output, which must be one that this batch may write; gives what is in it."""
        paths, lines = request.paths, request.lines
        if not self.overwrite:  # before anything is made
            new = [item for item in planned if item.task.id not in lines.kept]
            check_folder(paths, lines, planned, new)
        with paths.locked():
            if self.overwrite:
                paths.clear()
            yield read_lines(paths.results)  # once more: another run may have written

    def _engine(self, setup: Setup, events: Events) -> Engine:
        start = partial(worker.start, setup)
        how: dict[str, Any] = {"start": start, "timeout": setup.timeout}
        how |= {"model": os.path.basename(self.model) or self.model, "events": events}
        if self.ray is None:
            return partial(pool.run, workers=setup.workers, **how)
        return partial(cluster.run, address=self.ray, workers=self.workers, **how)


@contextmanager
def _reported(events: Events, results: Path) -> Iterator[None]:
    """After Ctrl-C, when all is written, report where what was done is kept."""
    try:
        yield
    except KeyboardInterrupt:
        some = results.exists() and results.stat().st_size
        kept = f"finished items are in {results}" if some else "none finished"
        events.interrupted(f"{kept}; {RESUME}")
        raise


@dataclass(frozen=True)
class _Request:
    """The items that were asked for, where results go, and what is there: with overwrite, nothing.

    The lock is not held yet, so that another run may write after that was read.
    """

    paths: OutputPaths
    tasks: list[Task]
    lines: Lines
