"""A loaded model, and what it is called; this module needs no torch, but what it holds does."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from malmm_cli import hub, media
from malmm_cli.calls import public
from malmm_cli.errors import UsageError
from malmm_cli.settings import Changes, Defaults, Settings

if TYPE_CHECKING:
    from malmm_cli.checkpoints.fingerprint import Fingerprints
    from malmm_cli.models.base import VideoModel
    from malmm_cli.pipeline.feature_cache import FeatureCache

__all__ = ["Model", "check_is_model"]


@dataclass(frozen=True)
class Model:
    """A loaded model, what it is called, and how many frames keep it busy and can be held.

    It is in `folder`. `reader` opens videos for it, `cache` keeps what it makes of their frames.
    """

    net: VideoModel[Any] = field(repr=False)
    name: str
    revision: str | None
    device: str
    dtype: str
    origin: hub.Origin = field(default_factory=hub.Origin)
    reader: media.Reader = field(default=media, repr=False)
    chunk: int = 16
    folder: Path = Path()
    cache: FeatureCache | None = None

    @cached_property
    def fingerprints(self) -> Fingerprints:
        """Names for its weights."""
        from malmm_cli.checkpoints.fingerprint import Fingerprints  # and torch

        return Fingerprints(self.folder, self.net.spec.parts, self.net.spec.heads)

    @property
    def defaults(self) -> Defaults:
        """The default settings of its family."""
        spec = self.net.spec
        memory = (spec.policies, spec.banks, spec.merges, spec.means, spec.fills)
        return Defaults(
            spec.defaults, *memory, looks_again=spec.looks_again, training=spec.training
        )

    @public
    def settings(
        self, task: str, settings: Settings | None = None, **changes: Unpack[Changes]
    ) -> Settings:
        """Return settings, or the defaults for "caption" or "ask", with changes.

        Raises UsageError for values that make no sense or that the model's family lacks.
        """
        return self.defaults.settings(task, settings, **changes)


def check_is_model(model: object) -> None:
    """Raise UsageError for what is not a model, its name or its folder; None is for the default."""
    if not (isinstance(model, Model | str | os.PathLike) or model is None):
        raise UsageError(
            f"model must be a model's name, its folder or a loaded model, not {model!r}",
            hint="malmm_cli.load(name) loads one",
        )
