"""What a library call was given → an opened video, a loaded model, and settings that it has."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from malmm_cli import media
from malmm_cli.errors import UsageError
from malmm_cli.events import Events
from malmm_cli.media.sampling import choose_for
from malmm_cli.pipeline.defaults import defaults_of
from malmm_cli.pipeline.features import Video, VideoFeatures, path_of
from malmm_cli.pipeline.loading import DEFAULT, load
from malmm_cli.pipeline.memory_header import (
    SAMPLING,
    holds_pictures,
    is_memory_file,
    is_of,
    model_of,
    other_model,
    sampling_of,
)
from malmm_cli.pipeline.model import Model, check_is_model
from malmm_cli.settings import Changes, Settings, flag
from malmm_cli.settings.arguments import shown
from malmm_cli.types import MediaInfo

__all__ = ["Given", "ModelGiven", "check_video", "given"]

# A loaded model, the name or folder of one, or None: the default, or the one of a memory file.
ModelGiven = Model | str | Path | None


class Given(NamedTuple):
    """A video, opened where its model had to be loaded, that model, and the settings for both."""

    video: Video | VideoFeatures
    model: Model
    settings: Settings


def given(
    task: str,
    video: Video | VideoFeatures,
    model: ModelGiven,
    settings: Settings | None,
    events: Events,
    changes: Changes,
    *,
    check: Callable[[Settings], object] | None = None,
) -> Given:
    """Check all of it, and load the model last where it is given by its name.

    Raises UsageError for arguments that will not do and MediaError for the video; both before a
    model is loaded. `check` raises more for settings.
    """
    check_video(video)
    check_is_model(model)
    path = path_of(video)
    kept = is_memory_file(path)
    if isinstance(model, Model):
        name, defaults = model.name, model.defaults
    else:
        made = model_of(path) if kept else DEFAULT
        name = os.fspath(model or made)
        if kept and model is not None and not (is_of(made, name) or holds_pictures(path)):
            raise other_model(path, made, name)
        defaults = defaults_of(name)
    early = defaults.settings(task, settings, **changes)
    if kept:
        _check_free(path, changes, early, defaults.settings(task))
    if check:
        check(early)
    if not isinstance(model, Model):
        if not kept and isinstance(video, str | Path):
            video = media.probe(video, early.sampling.decoder)
            choose_for(video, early.sampling)
        model = load(name, events=events)
        early = model.defaults.settings(task, settings, **changes)
    return Given(video, model, early)


def check_video(video: object, *, memory: bool = True) -> None:
    """Raise UsageError for what cannot be the path of a video, or a video that was opened.

    Without `memory`, memory files are refused too.
    """
    if not isinstance(video, str | os.PathLike | MediaInfo | VideoFeatures):
        from malmm_cli.pipeline.memory_file import MemoryFile  # which imports this file

        kept = isinstance(video, MemoryFile)
        hint = "write it first, and give that file: memory.write(file)" if kept else None
        raise UsageError(f"video must be a path, not {shown(video)}", hint=hint)
    if not memory and isinstance(video, str | os.PathLike) and is_memory_file(Path(video)):
        raise UsageError(f"{video}: is already a memory file", hint="give the video")


def _check_free(file: str, changes: Changes, settings: Settings, usual: Settings) -> None:
    """Raise UsageError for settings that were fixed when a memory file was made.

    Whole `settings` may have the values of the file, and those that are `usual` unless asked.
    """
    fixed = [name for name in SAMPLING if name in changes]
    if not fixed:
        values, made, defaults = settings.as_dict(), sampling_of(file), usual.as_dict()
        other = [n for n in SAMPLING if values.get(n) not in (made.get(n), defaults.get(n))]
        fixed = sorted(other, key=lambda name: values.get(name) is None)  # fps=1 has frames=None
    if fixed:
        raise UsageError(
            f"{flag(fixed[0])}: {file} is a memory file, and this was fixed when it was made",
            hint="leave it out, or rebuild the file: malmm remember VIDEO -o FILE",
        )
