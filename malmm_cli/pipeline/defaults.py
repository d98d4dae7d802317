"""A model's name → the default settings of its family, before the model is loaded."""

from __future__ import annotations

from malmm_cli import hub
from malmm_cli.models import registry
from malmm_cli.settings import Defaults

__all__ = ["defaults_of"]


def defaults_of(model: str) -> Defaults:
    """The defaults of a model's family, by the name of the model.

    Nothing is known of a repository that was never downloaded: see `registry.defaults`. That is
    enough to refuse wrong options early; `Model.defaults` has the right ones.
    """
    return registry.defaults(hub.model_type(model))
